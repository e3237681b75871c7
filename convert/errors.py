"""Errors of ``spikeport.convert``.

    ConvertError
    ├── UnsupportedLayerError  (ValueError)  nodes that have no spiking counterpart here; all of them at once
    ├── CaptureError           (ValueError)  a module that cannot be traced or run on the given input shape
    ├── WeightValueError       (ValueError)  weights, biases or activations that are not finite
    ├── CalibrationError       (ValueError)  a wish for scales or a search that makes no sense
    │   └── CalibrationDataError (ValueError)  calibration data that cannot set the scales
    ├── InvalidNetError        (ValueError)  a record that breaks the rules of ``SpikingNet``
    ├── InputError             (ValueError)  a raster or recording that does not match the net
    ├── NetFileError           (ValueError)  a file that is no spiking net, or a damaged one
    └── PowerFileError         (ValueError)  a power profile or rail log that is damaged, or cannot be fitted

Each class carries ``exit_code``, which is what the command line returns for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import Finding


class ConvertError(Exception):
    """Base class of everything that ``spikeport.convert`` raises on purpose."""

    exit_code = 2


class UnsupportedLayerError(ConvertError, ValueError):
    """Nodes of the CNN that have no spiking counterpart; the message lists all of them with a fix each.

    ``findings`` holds the same as records, one ``Finding`` per refused node.
    """

    exit_code = 3

    def __init__(self, message: str, findings: tuple[Finding, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings


class CaptureError(ConvertError, ValueError):
    """A module that cannot be traced, or that does not run on the given input shape."""

    exit_code = 3


class WeightValueError(ConvertError, ValueError):
    """Weights, biases or activations that are NaN or infinite."""

    exit_code = 6


class CalibrationError(ConvertError, ValueError):
    """Settings of scales or of a search that make no sense."""


class CalibrationDataError(CalibrationError):
    """Calibration data of the wrong shape, a single sample, or data on which a layer stays silent."""

    exit_code = 6


class InvalidNetError(ConvertError, ValueError):
    """A ``SpikingNet`` whose shapes, edges or values contradict each other."""


class InputError(ConvertError, ValueError):
    """A raster, trace or recording that does not match the net it is given to."""


class NetFileError(ConvertError, ValueError):
    """A file that is not a spiking net of a known version, or that is damaged."""

    exit_code = 6


class PowerFileError(ConvertError, ValueError):
    """A power profile or a rail log that is damaged, or a log that cannot tell its coefficients apart."""

    exit_code = 6
