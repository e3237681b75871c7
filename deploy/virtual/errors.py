"""Errors of the virtual board.

    VirtualBoardError  (DeviceError, RuntimeError)  lost, busy, closed, or asked for what it cannot do

It is also a RuntimeError, which is what the vendor's driver raises, so that code written for a real board catches it.
"""

from __future__ import annotations

from spikeport.deploy.errors import DeviceError


class VirtualBoardError(DeviceError, RuntimeError):
    """A virtual board that is lost, owned by another process, closed, hung, or that cannot do what was asked."""
