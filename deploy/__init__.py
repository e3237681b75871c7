"""Spiking network to chip: plan, compile, run, report.

The front door: ``__all__`` is what is public. numba, torch and matplotlib are imported by the functions that need them.
"""

from .artifact import load_program, program_hash, save_program
from .assemble import assemble
from .compare import Comparison, compare
from .device import Device, open_device
from .diagnosis import CoreDiagnosis, diagnose_chip
from .discretize import discretize
from .emulator import Emulator
from .errors import DeployError
from .judge import judge_chip
from .page import write_report
from .pipeline import compile_program, run
from .plan import Plan, plan
from .readout import classify, count_classes
from .report import Accuracy, Report
from .traffic import find_core_peaks
from .types import CoreProgram, Destination, DvsConfig, IntegerNet, Program, Recording, Violation

__all__ = [
    "Accuracy",
    "Comparison",
    "CoreDiagnosis",
    "CoreProgram",
    "DeployError",
    "Destination",
    "Device",
    "DvsConfig",
    "Emulator",
    "IntegerNet",
    "Plan",
    "Program",
    "Recording",
    "Report",
    "Violation",
    "assemble",
    "classify",
    "compare",
    "compile_program",
    "count_classes",
    "diagnose_chip",
    "discretize",
    "find_core_peaks",
    "judge_chip",
    "load_program",
    "open_device",
    "plan",
    "program_hash",
    "run",
    "save_program",
    "write_report",
]
