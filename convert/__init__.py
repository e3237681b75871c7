"""Torch CNN to chip-neutral spiking network, and what it costs.

The front door: ``__all__`` is what is public. torch and sinabs are imported by the functions that need them, not here.
"""

from .errors import ConvertError
from .evaluate import EquivalenceGate, Replacement
from .graph import Finding, Graph
from .normalize import Scaling
from .pipeline import convert, convert_graph
from .power import PowerEstimate, estimate_power
from .simulate import simulate, to_sinabs
from .store import load_net, save_net
from .synops import SynopReport, count_synops
from .tutorial import TutorialTable, tutorial_table
from .types import Conversion, Edge, SpikingLayer, SpikingNet, Trace

__all__ = [
    "Conversion",
    "ConvertError",
    "Edge",
    "EquivalenceGate",
    "Finding",
    "Graph",
    "PowerEstimate",
    "Replacement",
    "Scaling",
    "SpikingLayer",
    "SpikingNet",
    "SynopReport",
    "Trace",
    "TutorialTable",
    "convert",
    "convert_graph",
    "count_synops",
    "estimate_power",
    "load_net",
    "save_net",
    "simulate",
    "to_sinabs",
    "tutorial_table",
]
