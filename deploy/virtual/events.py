"""Event types of a virtual Speck, one set of classes per chip, as the driver has them.

Sources: names and attributes SAM (public documentation of samna 0.48); widths 32 bits where none is published.
"""

from __future__ import annotations

import types
from typing import Any

from .fields import Integer, Struct

_U32 = (0, 2**32 - 1)
_LAYER = (0, 255)
_STATE = (-32768, 32767)

_PLACE = {"layer": (0, *_LAYER), "feature": (0, *_U32), "y": (0, *_U32), "x": (0, *_U32)}
_TIME = {"timestamp": (0, *_U32)}
_CELL = {"layer": (0, *_LAYER), "address": (0, *_U32)}
_PIXEL = {"y": (0, *_U32), "x": (0, *_U32)}
_REGISTER = {"address": (0, *_U32), "data": (0, *_U32)}

BOTH: dict[str, dict[str, tuple[int, int, int]]] = {
    "Spike": {**_PLACE, **_TIME},
    "DvsEvent": {"p": (0, 0, 1), **_PIXEL, **_TIME},
}
INPUT: dict[str, dict[str, tuple[int, int, int]]] = {
    "WriteNeuronValue": {**_CELL, "neuron_state": (0, *_STATE)},
    "ReadNeuronValue": _CELL,
    "WriteWeightValue": {**_CELL, "weight": (0, -128, 127)},
    "ReadWeightValue": _CELL,
    "WriteBiasValue": {**_CELL, "bias": (0, *_STATE)},
    "ReadBiasValue": _CELL,
    "WriteRegisterValue": _REGISTER,
    "ReadRegisterValue": {"address": (0, *_U32)},
    "KillSensorPixel": _PIXEL,
    "ResetSensorPixel": _PIXEL,
    "ReadoutRequest": {},
}
OUTPUT: dict[str, dict[str, tuple[int, int, int]]] = {
    "NeuronValue": {**_CELL, "neuron_state": (0, *_STATE)},
    "WeightValue": {**_CELL, "weight": (0, -128, 127)},
    "BiasValue": {**_CELL, "bias": (0, *_STATE)},
    "RegisterValue": _REGISTER,
    "ReadoutValue": {"value": (0, *_U32)},
    "ReadoutPinValue": {"index": (0, 0, 255), **_TIME},
}


class Event(Struct):
    """An event of any kind."""

    __slots__ = ()


def event_kind(namespace: str, name: str, attributes: dict[str, Any]) -> type[Event]:
    """Return an event class ``namespace::name``; each attribute has a default, a lowest and a highest value."""
    body: dict[str, Any] = {"__slots__": (), "__doc__": f"Event {name}.", "_kind": f"{namespace}::{name}"}
    for attribute, (default, low, high) in attributes.items():
        body[attribute] = Integer(default, low, high)
    return type(name, (Event,), body)


def event_module(driver: str) -> types.SimpleNamespace:
    """Return the event classes of a chip by name, and ``InputEvent`` and ``OutputEvent``, what may go in or come out.

    Both are classes without objects of their own: ``isinstance`` tells whether an event belongs there.
    """
    namespace = f"{driver}::event"
    kinds = {name: event_kind(namespace, name, attributes) for name, attributes in {**BOTH, **INPUT, **OUTPUT}.items()}
    module = types.SimpleNamespace(**kinds)
    module.InputEvent = variant("InputEvent", [kinds[name] for name in (*BOTH, *INPUT)], namespace)
    module.OutputEvent = variant("OutputEvent", [kinds[name] for name in (*BOTH, *OUTPUT)], namespace)
    return module


class Variant(type):
    """The type of classes that stand for one of several kinds of events."""

    kinds: tuple[type, ...] = ()
    _kind: str = ""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, cls.kinds)

    def __repr__(cls) -> str:
        return f"<virtual {cls._kind}>"


def variant(name: str, kinds: list[type], namespace: str) -> Variant:
    """Return a class that stands for the given kinds of events."""
    body = {"kinds": tuple(kinds), "_kind": f"{namespace}::{name}", "__doc__": f"One of {len(kinds)} kinds of events."}
    return Variant(name, (), body)
