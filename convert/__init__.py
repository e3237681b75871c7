"""Torch CNN to chip-neutral spiking network, and what it costs.

The front door: ``__all__`` is what is public. torch and sinabs are imported by the functions that need them, not here.
"""

from .errors import ConvertError
from .evaluate import EquivalenceGate, Replacement
from .graph import Finding, Graph
from .normalize import Scaling
from .pipeline import convert, convert_graph
from .power import PlatformEnergy, PowerEstimate, compare_platforms, estimate_power, find_profile
from .powerfit import RailLog, fit_profile, read_rail_log
from .profiles import PowerProfile, load_profile, save_profile
from .simulate import simulate, to_sinabs
from .store import load_net, save_net
from .synops import EdgeTraffic, SynopReport, count_synops
from .traffic import TrafficReport, find_peaks, peak_rate
from .tutorial import TutorialTable, tutorial_table
from .types import Conversion, Edge, SpikingLayer, SpikingNet, Trace

__all__ = [
    "Conversion",
    "ConvertError",
    "Edge",
    "EdgeTraffic",
    "EquivalenceGate",
    "Finding",
    "Graph",
    "PlatformEnergy",
    "PowerEstimate",
    "PowerProfile",
    "RailLog",
    "Replacement",
    "Scaling",
    "SpikingLayer",
    "SpikingNet",
    "SynopReport",
    "Trace",
    "TrafficReport",
    "TutorialTable",
    "compare_platforms",
    "convert",
    "convert_graph",
    "count_synops",
    "estimate_power",
    "find_peaks",
    "find_profile",
    "fit_profile",
    "load_net",
    "load_profile",
    "peak_rate",
    "read_rail_log",
    "save_net",
    "save_profile",
    "simulate",
    "to_sinabs",
    "tutorial_table",
]
