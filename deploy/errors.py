"""Errors of ``spikeport.deploy``.

    DeployError
    ├── ChipNameError        (ValueError)  a chip name that the tables do not have
    ├── DoesNotFitError      (ValueError)  a net that the chip cannot hold; all violations at once
    ├── LayerOrderError      (ValueError)  a layer order that is no list of distinct cores, one per layer
    ├── MonitorError         (ValueError)  names to monitor that the net does not have
    ├── InvalidProgramError  (ValueError)  a program that breaks the integer specification or the chip's ranges
    ├── ProgramFileError     (ValueError)  a file that is no program, or a damaged one
    ├── BehaviorFileError    (ValueError)  a file that is no behavior of a chip
    ├── SessionFileError     (ValueError)  a file that is no recorded session of the live view, or a damaged one
    ├── RecordingError       (ValueError)  events that a program cannot be fed with
    ├── ReportError          (ValueError)  parts of a report that do not belong together
    ├── SettingError         (ValueError)  an option of a run outside its range
    ├── GoldenError          (ValueError)  a program without golden vectors, or a device with nothing to compare
    └── DeviceError          (OSError)     a device that is unknown, absent or lost

Each class carries ``exit_code``, which is what the command line returns for it.
"""


class DeployError(Exception):
    """Base class of everything that ``spikeport.deploy`` raises on purpose."""

    exit_code = 2


class ChipNameError(DeployError, ValueError):
    """A chip name that the tables do not have."""


class DoesNotFitError(DeployError, ValueError):
    """A net that the chip cannot hold; the message lists every violation with one thing to try each."""

    exit_code = 4


class LayerOrderError(DeployError, ValueError):
    """A layer order that is not a list of distinct cores of the chip, one per layer."""


class MonitorError(DeployError, ValueError):
    """Layers to monitor that the net does not have."""


class InvalidProgramError(DeployError, ValueError):
    """A program that breaks the integer specification or the ranges of its chip."""

    exit_code = 6


class ProgramFileError(DeployError, ValueError):
    """A file that is not a chip program of a known version, or that is damaged."""

    exit_code = 6


class BehaviorFileError(DeployError, ValueError):
    """A file that is not a behavior file of a known version, or names variants that do not exist."""

    exit_code = 6


class SessionFileError(DeployError, ValueError):
    """A file that is not a recorded session of the live view of a known version, or that is damaged."""

    exit_code = 6


class RecordingError(DeployError, ValueError):
    """Events that the program cannot be fed with."""


class SettingError(DeployError, ValueError):
    """An option of a run, as the slow clock's rate, outside its range."""


class GoldenError(DeployError, ValueError):
    """A program without golden vectors, or a device that gives nothing to compare with them."""


class ReportError(DeployError, ValueError):
    """Parts of a report that do not belong together, or an accuracy that is none."""


class DeviceError(DeployError, OSError):
    """A device that is unknown, absent or lost."""

    exit_code = 7
