"""A predictor from whatever a user has: a chip program, a spiking net, or a CNN by name or file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeport.models.errors import InferenceError, TensorFileError

if TYPE_CHECKING:
    from spikeport.models.predictor import Predictor

    from .device import Device
    from .types import Program


_MODELS = ("event ssm", "recurrent lif")
"""Kinds of files that hold a model which works on events by itself."""


@dataclasses.dataclass(frozen=True)
class OpenOptions:
    """What a file does not say: ``weights`` and ``input_shape`` of a CNN, ``step_us``, and the rate of the slow clock.

    ``power`` is the profile that energy is estimated by.
    """

    weights: Path | None = None
    input_shape: tuple[int, ...] | None = None
    step_us: int | None = None
    slow_clock_hz: float | None = None
    power: str = "speck2f"


def open_predictor(spec: str | Path, *, options: OpenOptions | None = None, device: Device | None = None) -> Predictor:
    """Return the predictor of a file or a name.

    ``spec`` is a chip program, a spiking net, a recurrent LIF classifier or an event state-space model
    (``.safetensors``), or a network as ``convert`` takes it: a zoo name, ``file.py:function``,
    ``package.module:function`` or a ``.pt2`` file. A program runs on ``device``, where one is given, else on the
    emulator.
    Raises: errors of the loaders; InferenceError where an option does not belong to what was opened.
    """
    from spikeport.convert.predictor import NetPredictor
    from spikeport.convert.store import load_net_with_notes

    from .artifact import load_program
    from .onboard import DevicePredictor
    from .predictors import ProgramPredictor

    chosen = options or OpenOptions()
    path = Path(spec)
    kind = _kind(path) if path.suffix.lower() == ".safetensors" else "network"
    if kind != "program" and (device is not None or chosen.slow_clock_hz is not None):
        given = "a device" if device is not None else "a slow clock"
        raise InferenceError(
            f"{path.name}: expected a chip program with {given}, found a {kind}. Try `spikeport deploy` first."
        )
    if kind != "network" and (chosen.weights is not None or chosen.input_shape is not None):
        raise InferenceError(
            f"{path.name}: expected no --weights or --input-shape, as a {kind} has its own, found one. Try without."
        )
    if kind in _MODELS:
        if chosen.step_us is not None:
            raise InferenceError(
                f"{path.name}: expected no --step-us, as a {kind} has times of its own, found {chosen.step_us}. "
                "Try without."
            )
        return _open_model(path, kind)
    if kind == "net":
        net, notes = load_net_with_notes(path)
        step_us = chosen.step_us or _whole(notes.get("step_us"))
        own: dict[str, Any] = {} if step_us is None else {"step_us": step_us}
        return NetPredictor(net, classes=_names(notes.get("classes")), power=chosen.power, **own)
    if kind == "program":
        program = load_program(path)
        names = _class_names(program)
        if device is not None:
            return DevicePredictor(device, program, names, chosen.slow_clock_hz)
        step_us = chosen.step_us or _whole(program.provenance.get("step_us"))
        own = {} if step_us is None else {"step_us": step_us}
        return ProgramPredictor(program, classes=names, slow_clock_hz=chosen.slow_clock_hz, power=chosen.power, **own)
    return _open_network(str(spec), chosen)


def _open_model(path: Path, kind: str) -> Predictor:
    """Return a model of its own, which no converted CNN is."""
    if kind == "event ssm":
        from spikeport.models.ssm.predictor import load_ssm

        return load_ssm(path)
    from spikeport.models.lif_predictor import load_lif

    return load_lif(path)


def _open_network(spec: str, options: OpenOptions) -> Predictor:
    from spikeport.models.cnn import CnnPredictor
    from spikeport.models.weights import load_weights
    from spikeport.models.zoo import load_network

    entry = load_network(spec)
    shape = options.input_shape or entry.input_shape
    if shape is None:
        raise InferenceError(
            f"network '{spec}': expected --input-shape channels,height,width, found none. Try 2,34,34."
        )
    if options.weights is not None:
        load_weights(entry.module, options.weights)
    return CnnPredictor(entry.module, shape, entry.classes, step_us=options.step_us)


def _kind(path: Path) -> str:
    """Return which of our files this is: ``net``, ``program`` or one of ``_MODELS``."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise TensorFileError(f"{path.name}: expected a net or a program there, found nothing. Try another path.")
    try:
        with safe_open(path, framework="numpy") as opened:
            header = json.loads((opened.metadata() or {}).get("spikeport", "{}"))
        kind = header.get("kind") if isinstance(header, dict) else None
    except (SafetensorError, OSError, ValueError, RecursionError) as cause:
        raise TensorFileError(
            f"{path.name}: expected a net or a program, found a damaged file ({str(cause)[:80]}). Try writing it again."
        ) from cause
    if kind not in ("net", "program", *_MODELS):
        raise TensorFileError(
            f"{path.name}: expected a spiking net, a chip program or a model, found another safetensors file. "
            f"Try NETWORK with --weights {path.name}."
        )
    return str(kind)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _names(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, (list, tuple)) else ()


def _class_names(program: Program) -> tuple[str, ...]:
    from .readout import n_classes

    names = _names(program.provenance.get("classes"))
    return names if len(names) == n_classes(program) else ()
