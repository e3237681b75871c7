"""Torch CNN to chip-neutral spiking network, and what it costs.

The front door: ``__all__`` is what is public. A module is imported when one of its names is first used.
"""

from typing import TYPE_CHECKING

from spikeport.models.front import open_front as _open_front

if TYPE_CHECKING:
    from .advice import REPLACEMENTS
    from .calibrate import Search, search, search_graph
    from .capture import capture
    from .choice import SearchSettings
    from .dense import to_sinabs
    from .diagnosis.diagnose import Diagnosis, diagnose
    from .errors import ConvertError
    from .evaluate import EquivalenceGate, Replacement
    from .exchange.nir_in import NirImport, load_nir, read_nir
    from .exchange.nir_out import save_nir
    from .exchange.onnx_in import load_onnx
    from .finetune import Finetuned, FinetuneSettings, finetune
    from .graph import Finding, Graph
    from .judging import LabelledSamples, Verdict, judge_spiking, label_recordings
    from .normalize import Scaling
    from .pipeline import convert, convert_graph
    from .power import PlatformEnergy, PowerEstimate, compare_platforms, estimate_power, find_profile
    from .powerfit import RailLog, fit_profile, read_rail_log
    from .predictor import NetPredictor
    from .prepare import FinetuneQuantization, expected_synops, finish_finetune, prepare_finetune, synop_penalty
    from .profiles import PowerProfile, load_profile, save_profile
    from .retrain import RetrainSettings, retrain
    from .simulate import simulate, simulate_events
    from .store import load_net, save_net
    from .synops import EdgeTraffic, SynopReport, count_synops
    from .traffic import TrafficReport, find_peaks, peak_rate
    from .tutorial import TutorialTable, tutorial_table
    from .types import Conversion, Edge, SpikingLayer, SpikingNet, Trace

__all__ = [
    "REPLACEMENTS",
    "Conversion",
    "ConvertError",
    "Diagnosis",
    "Edge",
    "EdgeTraffic",
    "EquivalenceGate",
    "Finding",
    "FinetuneQuantization",
    "FinetuneSettings",
    "Finetuned",
    "Graph",
    "LabelledSamples",
    "NetPredictor",
    "NirImport",
    "PlatformEnergy",
    "PowerEstimate",
    "PowerProfile",
    "RailLog",
    "Replacement",
    "RetrainSettings",
    "Scaling",
    "Search",
    "SearchSettings",
    "SpikingLayer",
    "SpikingNet",
    "SynopReport",
    "Trace",
    "TrafficReport",
    "TutorialTable",
    "Verdict",
    "capture",
    "compare_platforms",
    "convert",
    "convert_graph",
    "count_synops",
    "diagnose",
    "estimate_power",
    "expected_synops",
    "find_peaks",
    "find_profile",
    "finetune",
    "finish_finetune",
    "fit_profile",
    "judge_spiking",
    "label_recordings",
    "load_net",
    "load_nir",
    "load_onnx",
    "load_profile",
    "peak_rate",
    "prepare_finetune",
    "read_nir",
    "read_rail_log",
    "retrain",
    "save_net",
    "save_nir",
    "save_profile",
    "search",
    "search_graph",
    "simulate",
    "simulate_events",
    "synop_penalty",
    "to_sinabs",
    "tutorial_table",
]

_open_front(__name__)
