"""Where the emulated chip leaves the CNN, core by core, and why: what steps of time and float weights do not show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.diagnosis.causes import (
    BOUND_OFF,
    CLIPPED_OFF,
    GRID_OFF,
    WEIGHTS_OFF,
    Cause,
    Verdict,
    size,
    slope_through_origin,
)
from spikeport.convert.evaluate import evaluate
from spikeport.convert.graph import Conv, Graph, Relu
from spikeport.convert.types import Conversion
from spikeport.models.events import Events

from .emulator import Emulator
from .errors import RecordingError
from .types import INT16, CoreProgram, Program


@dataclasses.dataclass(frozen=True)
class CoreDiagnosis:
    """How the spikes of one core follow what the CNN's layer makes of the spikes that arrived, over all recordings.

    ``slope`` is that of the line through the origin; ``own_error`` the root mean square of the difference as a share of
    the spikes asked for; ``parts`` where it comes from: 8-bit weights, the lower bound, one spike per event at most
    (clipping), and biases that the slow clock adds less or more often than meant; what is left is the order of spikes
    and rounding. ``stuck_share`` of the neurons end above their threshold, ``saturated_share`` at an end of int16.
    """

    verdict: Verdict
    core: int
    n_neurons: int
    slope: float
    own_error: float
    stuck_share: float
    saturated_share: float
    dead_share: float
    parts: Mapping[str, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", MappingProxyType(dict(self.parts)))

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.verdict.layer

    @property
    def cause(self) -> Cause:
        """What is wrong on the core, or ``healthy``."""
        return self.verdict.cause

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values, ready for JSON."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("verdict", "parts")}
        return {**dataclasses.asdict(self.verdict), **fields, "parts": dict(self.parts)}


@dataclasses.dataclass(frozen=True)
class _Core:
    """One core over all recordings. Shapes: counts and states are ``[B, F, H, W]``."""

    program: CoreProgram
    node: Conv
    asked: NDArray[np.float32]
    unbiased: NDArray[np.float32]
    gridded: NDArray[np.float32]
    counts: NDArray[np.int64]
    states: NDArray[np.int16]
    free: NDArray[np.int64]
    bias_gain: float | None


def diagnose_chip(
    conversion: Conversion, program: Program, recordings: Sequence[Events], *, slow_clock_hz: float | None = None
) -> tuple[CoreDiagnosis, ...]:
    """Return where the emulated chip leaves ``conversion.scaled``, a row per core in network order.

    Each core is judged by the spikes that reach it, as ``diagnose`` judges layers. Relays, which only repeat, are not.
    Raises: RecordingError where there is no recording, or a core has no layer of its name in the conversion.
    """
    is_whole = {layer.name for layer in conversion.net.layers} <= {core.name for core in program.cores}
    missing = [] if is_whole else [core.name for core in program.cores if core.name not in conversion.scaled]
    if missing or not recordings:
        found = f"cores of other layers: {', '.join(missing)}" if missing else "no recording"
        raise RecordingError(
            f"diagnosis: expected recordings, and the program of this conversion, found {found}. "
            "Try the program compiled from conversion.net."
        )
    return tuple(map(_row, _run_cores(conversion, program, recordings, slow_clock_hz)))


def _run_cores(
    conversion: Conversion, program: Program, recordings: Sequence[Events], slow_clock_hz: float | None
) -> list[_Core]:
    import torch

    scaled = conversion.scaled
    emulator = Emulator(program, slow_clock_hz=slow_clock_hz)
    slow_clock_hz = emulator.rate_hz
    outcomes = [emulator.run(events.from_zero()) for events in recordings]
    counts = {core.core: np.stack([outcome.counts[core.core] for outcome in outcomes]) for core in program.cores}
    frames = torch.from_numpy(np.stack([_frame(events, scaled) for events in recordings]))
    sent = {}
    for core in program.cores:
        relu = next((reader for reader in scaled.consumers(core.name) if isinstance(reader, Relu)), None)
        if relu is not None:
            sent[relu.name] = torch.from_numpy(counts[core.core].astype(np.float32))
    layers = [core for core in program.cores if core.name in scaled]
    bare, coarse = _changed(scaled, layers)
    asked, unbiased, gridded = (evaluate(graph, frames, known=sent) for graph in (scaled, bare, coarse))
    cores = []
    for core in layers:
        node = scaled[core.name]
        if not isinstance(node, Conv):
            raise RecordingError(f"diagnosis: core {core.core} ('{core.name}') is no convolution of the conversion.")
        unbound = Emulator(_unbound(program, core), slow_clock_hz=slow_clock_hz or 0)
        free = np.stack([unbound.run(events.from_zero()).counts[core.core] for events in recordings])
        cores.append(
            _Core(
                program=core,
                node=node,
                asked=_positive(asked[core.name]),
                unbiased=_positive(unbiased[core.name]),
                gridded=_positive(gridded[core.name]),
                counts=counts[core.core],
                states=np.stack([outcome.states[core.core] for outcome in outcomes]),
                free=free,
                bias_gain=_bias_gain(core, node, recordings, slow_clock_hz),
            )
        )
    return cores


def _frame(events: Events, scaled: Graph) -> NDArray[np.float32]:
    started = events.from_zero()
    raster = started.to_raster(max(1, started.duration_us + 1), merge_polarity=scaled.input_shape[0] == 1)
    return np.asarray(raster.sum(axis=0), np.float32)


def _changed(scaled: Graph, cores: Sequence[CoreProgram]) -> tuple[Graph, Graph]:
    """Return the scaled CNN without biases, and with the weights of the program in its place."""
    bare = coarse = scaled
    for core in cores:
        node = scaled[core.name]
        if isinstance(node, Conv):
            bare = bare.replaced(core.name, bias=None)
            if core.weight.shape == node.weight.shape:  # grouped and dilated ones are stored with zeros between
                weight = (core.weight / core.threshold_high).astype(np.float32)
                coarse = coarse.replaced(core.name, weight=weight)
    return bare, coarse


def _unbound(program: Program, core: CoreProgram) -> Program:
    free = dataclasses.replace(core, threshold_low=INT16[0])
    cores = tuple(free if other.core == core.core else other for other in program.cores)
    return dataclasses.replace(program, cores=cores)


def _bias_gain(
    core: CoreProgram, node: Conv, recordings: Sequence[Events], slow_clock_hz: float | None
) -> float | None:
    """Return the bias that leak ticks add, as a multiple of the CNN's; None where the CNN has none."""
    if node.bias is None or not node.bias.any():
        return None
    if core.bias is None or slow_clock_hz is None:
        return 0.0
    seconds = float(np.mean([events.duration_us for events in recordings])) * 1e-6
    added = core.bias.astype(np.float64) / core.threshold_high * (seconds * slow_clock_hz)
    return float(added @ node.bias / (node.bias @ node.bias))


def _positive(value: Any) -> NDArray[np.float32]:
    return np.asarray(np.maximum(value.numpy(), 0.0), np.float32)


def _row(core: _Core) -> CoreDiagnosis:
    spikes = core.counts.astype(np.float32)
    base = size(core.asked) or 1.0
    missing = np.maximum(core.states.astype(np.int64) // core.program.threshold_high, 0)
    off = 0.0 if core.bias_gain is None else abs(core.bias_gain - 1)
    parts = {
        "int8": size(core.gridded - core.asked) / base,
        "lower bound": size(core.counts - core.free) / base,
        "clipping": size(missing) / base,
        "bias": off * size(core.unbiased - core.asked) / base,
    }
    active = (core.asked >= 1).any(axis=0)
    return CoreDiagnosis(
        verdict=_verdict(core, parts),
        core=core.program.core,
        n_neurons=int(active.size),
        slope=slope_through_origin(core.asked, spikes),
        own_error=size(spikes - core.asked) / base,
        stuck_share=float((missing > 0).mean()),
        saturated_share=float(np.isin(core.states, INT16).mean()),
        dead_share=float((active & ~core.counts.any(axis=0)).mean()),
        parts=parts,
    )


def _verdict(core: _Core, parts: dict[str, float]) -> Verdict:
    """Return the largest part of the error that exceeds its limit, by the limits of ``convert.causes``."""
    limits = {"int8": GRID_OFF, "lower bound": BOUND_OFF, "clipping": CLIPPED_OFF, "bias": WEIGHTS_OFF}
    name = core.program.name
    worst = max(parts, key=lambda part: parts[part] / limits[part])
    if parts[worst] <= limits[worst]:
        left = size(core.counts - core.asked) / (size(core.asked) or 1.0)
        return Verdict(name, "healthy", f"error of its own {left:.0%} of its spikes.", "")
    error = f"an error of {parts[worst]:.0%} of its spikes."
    low, high = core.program.threshold_low, core.program.threshold_high
    match worst:
        case "int8":
            zeros = float(np.mean(core.program.weight == 0))
            text = f"{zeros:.0%} of its 8-bit weights are 0, {error}"
            return Verdict(name, "int8 overflow", text, "Try training with weight decay, or Scaling(equalize=True).")
        case "lower bound":
            text = f"the bound of {low / high:.3g} thresholds takes potential, event by event, {error}"
            return Verdict(name, "lower bound too tight", text, f"Try --v-min {4 * low / high:.2g}, or none.")
        case "clipping":
            share = float((core.states >= high).mean())
            text = f"{share:.0%} of its neurons end above their threshold: one event causes one spike at most, {error}"
            return Verdict(name, "clipping", text, "Try fewer spikes (--spikes) or a higher --percentile.")
    gain = core.bias_gain or 0.0
    cause: Cause = "bias not applied" if gain < 1 else "bias added too often"
    text = f"leak ticks add {gain:.3g} times the bias of the CNN, {error}"
    return Verdict(name, cause, text, "Try --slow-clock-hz with as many ticks a recording as --steps, or no biases.")


def chip_tables(rows: Sequence[CoreDiagnosis]) -> list[object]:
    """Return the diagnosis of the chip for a terminal: a row per core, and what to do."""
    from spikeport.models.console import table

    shown = [
        (
            row.name,
            row.core,
            row.slope,
            *(100 * share for share in (row.own_error, *row.parts.values(), row.stuck_share, row.dead_share)),
            row.cause,
        )
        for row in rows
    ]
    columns = ("Layer", "Core", "Slope", "Own error %", "Int8 %", "Lower bound %", "Clipping %", "Bias %")
    title = "Spikes on the emulated chip against what the CNN makes of the events that arrived"
    bad = [str(row.verdict) for row in rows if row.cause != "healthy"]
    first = [f"First bad core: {bad[0]}", *bad[1:]] if bad else ["No bad core."]
    return [table(title, (*columns, "Stuck %", "Dead %", "Verdict"), shown), *first]
