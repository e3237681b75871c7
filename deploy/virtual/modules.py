"""The virtual driver as modules: everything that ``import samna`` and ``import samnagui`` would offer."""

from __future__ import annotations

import types
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spikeport.models.events import Events

from . import clock, specksim, ui
from .board import Board, DeviceSinkNode, DeviceSourceNode, Model
from .builders import BUILDERS
from .camera import Scene, find_scene
from .configuration import CLASSES, CONFIGURATIONS
from .events import event_kind, event_module
from .fields import Integer, Real
from .filters import named_nodes
from .graph import EventFilterGraph, SinkNode, SourceNode, sink_from, source_to
from .power import PowerModule
from .rack import DeviceInfo, Rack
from .streamer import run_visualizer
from .validation import validate_configuration

_INPUT_NAMES = {"speck2f": "speck2f_event_input_event", "speck2e": "speck2e_event_speck2e_input_event"}
_OUTPUT_NAMES = {"speck2f": "speck2f_event_output_event", "speck2e": "speck2e_event_output_event"}
_BOARD_MODULES = {
    "speck2fBoards": ("Speck2fDevKit", "Speck2fModuleDevKit"),
    "speck2eTestBoard": ("Speck2eTestBoard", "Speck2eDevKit"),
}

_EVENTS = {driver: event_module(driver) for driver in CONFIGURATIONS}
_U32 = (0, 0, 2**32 - 1)
_CAMERA = event_kind("camera::event", "DvsEvent", {"p": (0, 0, 1), "y": _U32, "x": _U32, "timestamp": _U32})


class PowerMeasurement(event_kind("unifirm::modules::events", "PowerMeasurement", {})):  # type: ignore[misc]
    """The power of one rail, in watts."""

    __slots__ = ()
    channel = Integer(0, 0, 255)
    value = Real(0.0)
    timestamp = Integer(*_U32)


def virtual_version() -> str:
    """Return the version that the virtual driver reports."""
    return f"0.48.0+virtual.spikeport.{version('spikeport')}"


def chip_module(driver: str) -> types.ModuleType:
    """Return the module of a chip, ``speck2e`` or ``speck2f``: ``configuration``, ``event`` and
    ``validate_configuration``, which need no board.
    """
    name = f"samna.{driver}"
    configuration = _module(f"{name}.configuration", {kind.__name__: kind for kind in CLASSES})
    configuration.SpeckConfiguration = CONFIGURATIONS[driver]  # type: ignore[attr-defined]
    return _module(
        name,
        {
            "configuration": configuration,
            "event": _module(f"{name}.event", dict(vars(_EVENTS[driver]))),
            "validate_configuration": validate_configuration,
            f"{driver.capitalize()}Model": Model,
        },
    )


def driver(
    devices: Sequence[str], *, n_queue: int | None = None, camera: Events | Path | str | None = None
) -> types.ModuleType:
    """Return a virtual driver with the given boards, which is what ``install`` puts in place of ``samna``.

    ``n_queue`` is the number of events that wait in a board at most (None: ``engine.QUEUE_EVENTS``).
    ``camera`` is the recording that the cameras look at (None: what ``install`` or the environment names).
    Besides what the real one has, it offers ``virtual``, the rack with the faults that a test may cause.
    Raises: ChipNameError for an unknown chip, VirtualBoardError for an empty list.
    """
    nodes, basic = _device_nodes(), _basic_nodes()
    scene = find_scene() if camera is None else Scene(camera)
    rack = Rack(devices, events=_EVENTS, nodes=nodes, power=PowerMeasurement, n_queue=n_queue, scene=scene)
    graph = type("EventFilterGraph", (EventFilterGraph,), {"__doc__": EventFilterGraph.__doc__})
    graph.named = named_nodes(_EVENTS)  # type: ignore[attr-defined]
    power_events = {"PowerMeasurement": PowerMeasurement, "Measurement": PowerMeasurement}
    parts: dict[str, Any] = {
        "device": {
            "DeviceInfo": DeviceInfo,
            "get_all_devices": rack.all,
            "get_unopened_devices": rack.unopened,
            "get_opened_devices": rack.opened,
            "open_device": rack.open,
            "close_device": rack.close,
        },
        "graph": {"EventFilterGraph": graph, "source_to": source_to, "sink_from": sink_from, **BUILDERS},
        "ui": {kind.__name__: kind for kind in (*ui.EVENTS, *ui.PLOTS)} | {"Event": ui.Event},
        "camera": {"event": {"DvsEvent": _CAMERA}},
        "specksim": {
            "nodes": {kind.__name__: kind for kind in _SPECKSIM_NODES},
            "events": {"Spike": specksim.Spike, "WeightedEvent": specksim.WeightedEvent},
            "layers": {kind.__name__: kind for kind in _SPECKSIM_LAYERS},
        },
        "unifirm": {
            "timestamp": {"StopWatch": clock.StopWatch},
            "modules": {"events": power_events, "ioControl": {"IoModule": clock.IoModule}},
            "PowerModule": PowerModule,
        },
        **{name: dict.fromkeys(boards, Board) for name, boards in _BOARD_MODULES.items()},
    }
    module = _module("samna", {**basic, **{kind.__name__: kind for pair in nodes.values() for kind in pair}})
    for name, content in parts.items():
        setattr(module, name, _tree(f"samna.{name}", content))
    for name in CONFIGURATIONS:
        setattr(module, name, chip_module(name))
    module.__version__ = virtual_version()  # type: ignore[attr-defined]
    module.virtual = rack  # type: ignore[attr-defined]
    return module


def viewer() -> types.ModuleType:
    """Return the module that stands for ``samnagui``: a viewer without a window."""
    module = _module("samnagui", {"run_visualizer": run_visualizer})
    module.__version__ = virtual_version()  # type: ignore[attr-defined]
    return module


def submodules(module: types.ModuleType) -> dict[str, types.ModuleType]:
    """Return a module of this file and all modules inside of it, by their names."""
    found = {module.__name__: module}
    for value in vars(module).values():
        if isinstance(value, types.ModuleType) and value.__name__.startswith(f"{module.__name__}."):
            found |= submodules(value)
    return found


_SPECKSIM_NODES: tuple[type, ...] = (
    specksim.SpecksimConvolutionalFilterNode,
    specksim.SpecksimIAFFilterNode,
    specksim.SpecksimSumPoolingFilterNode,
)
_SPECKSIM_LAYERS: tuple[type, ...] = (specksim.ConvolutionalLayer, specksim.IAFLayer, specksim.SumPoolingLayer)


def _module(name: str, content: dict[str, Any]) -> types.ModuleType:
    module = types.ModuleType(name, f"Virtual {name}: part of spikeport's virtual board, not the vendor's driver.")
    module.__spec__ = ModuleSpec(name, loader=None, origin="spikeport.deploy.virtual", is_package=True)
    module.__path__ = []
    module.__dict__.update(content)

    def missing(attribute: str) -> Any:
        raise AttributeError(f"virtual {name} has no '{attribute}': the virtual board does not offer it.")

    module.__getattr__ = missing  # type: ignore[method-assign]
    return module


def _tree(name: str, content: dict[str, Any]) -> types.ModuleType:
    parts = {key: _tree(f"{name}.{key}", value) if isinstance(value, dict) else value for key, value in content.items()}
    return _module(name, parts)


def _device_nodes() -> dict[str, tuple[type, type]]:
    """Return the classes of the nodes of a board, source and sink, by driver; sinabs reads the driver off the name."""
    found = {}
    for name, events in _EVENTS.items():
        source = type(
            f"DeviceSourceNode_{_OUTPUT_NAMES[name]}", (DeviceSourceNode,), {"gives": events.OutputEvent.kinds}
        )
        sink = type(f"DeviceSinkNode_{_INPUT_NAMES[name]}", (DeviceSinkNode,), {"takes": events.InputEvent.kinds})
        found[name] = (source, sink)
    return found


def _basic_nodes() -> dict[str, type]:
    """Return the classes of sources and sinks that a user makes, by their names."""
    kinds: dict[str, tuple[type, ...]] = {
        "ui_event": ui.EVENTS,
        "specksim_events_spike": (specksim.Spike,),
        "specksim_events_weighted_event": (specksim.WeightedEvent,),
        "unifirm_modules_events_measurement": (PowerMeasurement,),
        "unifirm_modules_events_power_measurement": (PowerMeasurement,),
        "camera_event_dvs_event": (_CAMERA,),
    }
    for name, events in _EVENTS.items():
        kinds[_INPUT_NAMES[name]] = events.InputEvent.kinds
        kinds[_OUTPUT_NAMES[name]] = events.OutputEvent.kinds
    found: dict[str, type] = {}
    for suffix, taken in kinds.items():
        source, sink = f"BasicSourceNode_{suffix}", f"BasicSinkNode_{suffix}"
        found[source] = type(source, (SourceNode,), {"takes": taken, "gives": taken})
        found[sink] = type(sink, (SinkNode,), {"takes": taken})
    return found
