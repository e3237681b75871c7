"""Peak rates: the busiest window of a recording, in synops and in routed events, layer by layer."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError
from .geometry import Pair, sum_pooled
from .profiles import UNKNOWN_LIMIT, RateLimit
from .synops import check_trace, edge_reach
from .types import INPUT, SpikingNet, Trace


@dataclasses.dataclass(frozen=True)
class Peak:
    """The busiest window: ``n`` operations from ``start_us`` on, of recording ``sample``.

    Units: ``per_s`` is ``n`` over the length of the window.
    """

    n: int
    per_s: float
    start_us: int
    sample: int = 0


@dataclasses.dataclass(frozen=True)
class LayerPeaks:
    """The busiest windows of one layer: synops, events routed to it, and events it sends over all of its edges."""

    name: str
    synops: Peak
    received: Peak
    sent: Peak


@dataclasses.dataclass(frozen=True)
class TrafficReport:
    """Peak rates per layer over a sliding window, ``input`` those of the events on their way in.

    ``core_limit`` is what one core can do, as far as that is known.
    """

    layers: tuple[LayerPeaks, ...]
    input: Peak
    window_us: int
    core_limit: RateLimit

    def load(self, layer: LayerPeaks) -> float | None:
        """Return the layer's peak as a share of what one core can do; None where that is not known."""
        limit = self.core_limit.synops_per_s
        return None if limit is None else layer.synops.per_s / limit

    @property
    def overloaded(self) -> tuple[str, ...]:
        """Names of the layers whose peak is above the limit of a core; empty where that is not known."""
        return tuple(layer.name for layer in self.layers if (self.load(layer) or 0.0) > 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, ready for JSON."""
        return {
            "window_us": self.window_us,
            "input": dataclasses.asdict(self.input),
            "layers": [{**dataclasses.asdict(layer), "load": self.load(layer)} for layer in self.layers],
            "core_limit": dataclasses.asdict(self.core_limit),
        }


def peak_rate(times_us: ArrayLike, amounts: ArrayLike, *, window_us: int) -> Peak:
    """Return the busiest window of ``window_us`` in a stream of events; the earliest of several.

    Shapes: one amount (synops, for example) per event; the times do not decrease.
    Law: ``n`` is the largest sum of amounts with ``start <= time < start + window_us`` over every possible start,
    exactly; it is reached by a window that starts with an event.
    Raises: InputError for arrays that are no such stream, or a window below 1 us.
    """
    times, whole = _stream(times_us, amounts, window_us)
    if not len(times):
        return Peak(0, 0.0, 0)
    until = np.concatenate(([0], np.cumsum(whole)))
    sums = until[np.searchsorted(times, times + window_us, side="left")] - until[:-1]
    first = int(sums.argmax())
    return Peak(int(sums[first]), int(sums[first]) / (window_us * 1e-6), int(times[first]))


def event_synops(reach: NDArray[np.int64], y: ArrayLike, x: ArrayLike, *, pool: Pair = (1, 1)) -> NDArray[np.int64]:
    """Return the synops of each event of a stream; 0 for one that the pool drops at the edge of the map.

    Shapes: ``reach`` ``[H, W]`` is ``fan_out`` of the layer they go to; ``y`` and ``x`` are un-pooled coordinates.
    """
    rows, columns = np.asarray(y, np.int64) // pool[0], np.asarray(x, np.int64) // pool[1]
    height, width = reach.shape
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    reached = reach[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    return np.asarray(np.where(is_inside, reached, 0), np.int64)


def find_peaks(
    net: SpikingNet, trace: Trace, *, raster: ArrayLike, window_us: int, core_limit: RateLimit = UNKNOWN_LIMIT
) -> TrafficReport:
    """Return the peak rates of a simulation that recorded all spikes, over a window that slides by one step.

    ``raster`` is what was simulated: a trace keeps only the sum of its input. ``core_limit`` is a field of a power
    profile. A step counts as a moment: the busiest time within one is not known.
    Units: ``window_us`` is a multiple of the trace's step, and no longer than the recording.
    Law: exact integers, the largest sum over all windows of that many steps in one recording.
    Raises: InputError where the trace holds no spikes, is not of this raster, or the window does not fit the steps.
    """
    check_trace(net, trace)
    _check_window(trace, window_us)
    sources = [_checked_raster(net, trace, raster), *(trace.spikes or ())]
    per_step = [np.asarray(counts).sum(axis=2, dtype=np.int64) for counts in sources]  # [T, B, H, W]
    routed = [counts.sum(axis=(2, 3)) for counts in per_step]
    none = np.zeros_like(routed[0])
    synops, received, sent = ([none] * len(net.layers) for _ in range(3))
    for edge in net.edges:
        amount, reach = routed[edge.source + 1], edge_reach(net, edge)
        if edge.source != INPUT:
            sent[edge.source] = sent[edge.source] + amount
        if edge.target is not None and reach is not None:
            received[edge.target] = received[edge.target] + amount
            arrived = sum_pooled(per_step[edge.source + 1], edge.pool)
            synops[edge.target] = synops[edge.target] + (arrived * reach).sum(axis=(2, 3))
    layers = tuple(
        LayerPeaks(
            layer.name,
            *(_busiest(kind[index], dt_us=trace.dt_us, window_us=window_us) for kind in (synops, received, sent)),
        )
        for index, layer in enumerate(net.layers)
    )
    return TrafficReport(layers, _busiest(routed[0], dt_us=trace.dt_us, window_us=window_us), window_us, core_limit)


def _busiest(amounts: NDArray[np.int64], *, dt_us: int, window_us: int) -> Peak:
    """Return the peak of amounts per step ``[T, B]``, over all recordings."""
    times = np.arange(amounts.shape[0], dtype=np.int64) * dt_us
    peaks = (
        dataclasses.replace(peak_rate(times, column, window_us=window_us), sample=sample)
        for sample, column in enumerate(amounts.T)
    )
    return max(peaks, key=lambda peak: peak.n)


def _stream(times_us: ArrayLike, amounts: ArrayLike, window_us: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    times, whole = np.asarray(times_us), np.asarray(amounts)
    if times.ndim != 1 or times.shape != whole.shape:
        raise InputError(
            f"peak rate: expected one amount per event, found {list(times.shape)} times and {list(whole.shape)} "
            "amounts. Try arrays of equal length."
        )
    if len(times) and not (np.issubdtype(times.dtype, np.integer) and np.issubdtype(whole.dtype, np.integer)):
        raise InputError(
            f"peak rate: expected whole times in us and whole amounts, found {times.dtype} and {whole.dtype}. "
            "Try integer arrays."
        )
    times, whole = times.astype(np.int64), whole.astype(np.int64)
    if np.any(np.diff(times) < 0) or np.any(whole < 0):
        raise InputError(
            "peak rate: expected times that do not decrease and amounts of 0 or more, found others. "
            "Try sorting by time."
        )
    if window_us < 1:
        raise InputError(f"peak rate: expected a window of 1 us or more, found {window_us}. Try 10000.")
    return times, whole


def _check_window(trace: Trace, window_us: int) -> None:
    length_us = trace.n_steps * trace.dt_us
    if window_us < 1 or window_us % trace.dt_us or window_us > length_us:
        raise InputError(
            f"peak rates: expected a window of whole steps of {trace.dt_us} us and at most {length_us} us, the length "
            f"of the recording, found {window_us} us. Try {trace.dt_us}."
        )
    if trace.spikes is None:
        raise InputError(
            "peak rates: expected a trace of all spikes over time, found one of sums. "
            'Try simulate(net, raster, record="all").'
        )


def _checked_raster(net: SpikingNet, trace: Trace, raster: ArrayLike) -> NDArray[Any]:
    array = np.asarray(raster)
    batch = array[:, None] if array.ndim == 4 else array
    shape = (trace.n_steps, trace.n_samples, *net.input_shape)
    if batch.shape != shape:
        raise InputError(
            f"peak rates: expected the raster of the trace, of shape {list(shape)}, found {list(batch.shape)}. "
            "Try the raster that was simulated."
        )
    if np.any(batch != np.rint(batch)) or np.any(batch < 0):
        raise InputError("peak rates: expected an input of whole event counts, found others. Try an event raster.")
    if not np.array_equal(batch.sum(axis=0, dtype=np.float64), trace.input_counts):
        raise InputError(
            "peak rates: expected the raster of the trace, found another one: its events add up differently. "
            "Try the raster that was simulated."
        )
    return np.asarray(batch, np.int64)
