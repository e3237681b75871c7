"""Putting the virtual driver where ``import samna`` finds it, and taking it out again."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path

from spikeport.deploy.errors import DeviceError
from spikeport.deploy.preflight import find_installed
from spikeport.models.events import Events

from .camera import install_scene
from .modules import driver, submodules, viewer

_NAMES = ("samna", "samnagui")
_VENDOR = "sinabs.backend.dynapcnn"


def install(
    devices: Sequence[str] = ("speck2fdevkit",),
    *,
    n_queue: int | None = None,
    camera: Events | Path | str | None = None,
) -> types.ModuleType:
    """Put a virtual driver with the given boards in place of ``samna`` and ``samnagui``, and return it.

    ``camera`` is a recording, or a file of one, that the cameras of all virtual boards look at until ``uninstall``,
    those that ``open_device`` opens too. A camera begins with it when a configuration turns the sensor on, and begins
    again at its end, in real time. Without one a camera sees nothing.
    To be called before the vendor library's chip back-end is imported; a second call replaces the first driver.
    Raises: DeviceError where a real driver is installed, or something else has been imported under its name;
    ChipNameError for an unknown chip.
    """
    if find_installed().state == "real":
        raise DeviceError(
            "virtual board: the real samna is installed, and is not replaced. "
            "Try the board itself, or an environment without samna."
        )
    foreign = [name for name in _NAMES if name in sys.modules and not _is_ours(sys.modules[name])]
    if foreign:
        raise DeviceError(
            f"virtual board: {foreign[0]} has been imported already. Try install() before anything that imports it."
        )
    module = driver(devices, n_queue=n_queue, camera=camera)
    uninstall()
    install_scene(camera)
    sys.modules.update({**submodules(module), **submodules(viewer())})
    return module


def uninstall() -> None:
    """Take the virtual driver out and close its boards; without one nothing happens.

    The vendor library's chip back-end, which holds on to the driver that it was imported with, is forgotten too.
    """
    module = sys.modules.get("samna")
    if module is None or not _is_ours(module):
        return
    module.virtual.close_all()
    install_scene(None)
    for name in [name for name in sys.modules if name.partition(".")[0] in _NAMES]:
        del sys.modules[name]
    for name in [name for name in sys.modules if name == _VENDOR or name.startswith(f"{_VENDOR}.")]:
        del sys.modules[name]
    parent, _, child = _VENDOR.rpartition(".")
    if parent in sys.modules:
        vars(sys.modules[parent]).pop(child, None)


@contextlib.contextmanager
def installed(
    devices: Sequence[str] = ("speck2fdevkit",),
    *,
    n_queue: int | None = None,
    camera: Events | Path | str | None = None,
) -> Iterator[types.ModuleType]:
    """Hold a virtual driver in place while the block runs."""
    module = install(devices, n_queue=n_queue, camera=camera)
    try:
        yield module
    finally:
        uninstall()


def _is_ours(module: types.ModuleType) -> bool:
    spec = getattr(module, "__spec__", None)
    return spec is not None and spec.origin == "spikeport.deploy.virtual"
