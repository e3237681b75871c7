"""Spiking network to chip: plan, compile, run, report.

The front door: ``__all__`` is what is public. A module is imported when one of its names is first used.
"""

from typing import TYPE_CHECKING

from spikeport.models.front import open_front as _open_front

if TYPE_CHECKING:
    from .artifact import load_program, program_hash, save_program
    from .assemble import assemble
    from .behavior import Behavior, read_behavior, write_behavior
    from .compare import Comparison, compare
    from .device import Device, open_device
    from .diagnosis import CoreDiagnosis, diagnose_chip
    from .diff import Change, ProgramDiff, diff_programs
    from .discretize import FittedNet, discretize, fitted
    from .dvs import apply_dvs, with_dvs
    from .emulator import Emulator
    from .errors import DeployError
    from .fixes.suggest import suggest
    from .fixes.types import Cost, Fix
    from .golden import add_golden, count_untouched
    from .inventory import Inventory, list_devices
    from .judge import judge_chip
    from .onboard import DevicePredictor
    from .opening import OpenOptions, open_predictor
    from .page import write_report
    from .picture import draw_text, outline
    from .pipeline import compile_program, run
    from .plan import Plan, plan
    from .predictors import ProgramPredictor
    from .rails import RailSamples
    from .readout import classify, count_classes, with_readout
    from .recordings import load_recording, save_recording
    from .relay import with_relays
    from .report import Accuracy, Report
    from .samna_config import configure
    from .selfcheck import SelfCheck, selfcheck
    from .traffic import find_core_peaks
    from .trial import fit_to
    from .types import (
        CoreProgram,
        Destination,
        DvsConfig,
        Golden,
        IntegerNet,
        Program,
        ReadoutConfig,
        Recording,
        Violation,
    )
    from .variant import run_variant
    from .verify import Divergence, Verification, verify
    from .view.settings import ServeSettings, ViewSettings
    from .view.viewer import Viewer
    from .wiring import draw_svg

__all__ = [
    "Accuracy",
    "Behavior",
    "Change",
    "Comparison",
    "CoreDiagnosis",
    "CoreProgram",
    "Cost",
    "DeployError",
    "Destination",
    "Device",
    "DevicePredictor",
    "Divergence",
    "DvsConfig",
    "Emulator",
    "FittedNet",
    "Fix",
    "Golden",
    "IntegerNet",
    "Inventory",
    "OpenOptions",
    "Plan",
    "Program",
    "ProgramDiff",
    "ProgramPredictor",
    "RailSamples",
    "ReadoutConfig",
    "Recording",
    "Report",
    "SelfCheck",
    "ServeSettings",
    "Verification",
    "ViewSettings",
    "Viewer",
    "Violation",
    "add_golden",
    "apply_dvs",
    "assemble",
    "classify",
    "compare",
    "compile_program",
    "configure",
    "count_classes",
    "count_untouched",
    "diagnose_chip",
    "diff_programs",
    "discretize",
    "draw_svg",
    "draw_text",
    "find_core_peaks",
    "fit_to",
    "fitted",
    "judge_chip",
    "list_devices",
    "load_program",
    "load_recording",
    "open_device",
    "open_predictor",
    "outline",
    "plan",
    "program_hash",
    "read_behavior",
    "run",
    "run_variant",
    "save_program",
    "save_recording",
    "selfcheck",
    "suggest",
    "verify",
    "with_dvs",
    "with_readout",
    "with_relays",
    "write_behavior",
    "write_report",
]

_open_front(__name__)
