"""Recordings or rasters as batches to train a spiking net on: events binned in steps, under small random changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.arrays import ArrayRecord
from spikeport.models.events import Events

from .errors import InputError
from .types import SpikingNet

Recordings = Sequence[Events] | NDArray[Any]

MAX_CELLS = 100_000_000
"""Cells of one recording's raster: 400 MB for each batch of one."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How a drawn recording differs from the given one.

    Units: a random affine map of up to ``rotation_deg``, ``stretch`` (relative, shear too) and ``shift`` (as a share of
    the sensor's shorter side); a share of the events between 0 and ``event_drop`` is left out. Positions between pixels
    go to either neighbor by chance. Recordings in time, not rasters, start anywhere in the first step.
    """

    shift: float = 0.09
    rotation_deg: float = 15.0
    stretch: float = 0.18
    event_drop: float = 0.5


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Samples(ArrayRecord):
    """All events of all recordings side by side; those of recording ``i`` are ``starts[i]:starts[i + 1]``.

    Shapes: ``channel, y, x, time`` are 1-D, ``time`` in steps (not whole for recordings) from the start of its own
    recording; ``n_steps`` is enough for every recording, wherever in the first step it starts.
    """

    channel: NDArray[np.int64]
    y: NDArray[np.int64]
    x: NDArray[np.int64]
    time: NDArray[np.float64]
    starts: NDArray[np.int64]
    shape: tuple[int, int, int]
    n_steps: int
    has_phase: bool

    def __len__(self) -> int:
        return len(self.starts) - 1

    def n_events(self, chosen: NDArray[np.int64]) -> int:
        """Return the number of events of the chosen recordings together."""
        return int((self.starts[chosen + 1] - self.starts[chosen]).sum())

    def draw(
        self, chosen: NDArray[np.int64], *, augmentation: Augmentation | None = None, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Return the rasters ``[T, B, C, H, W]`` of the chosen recordings, changed at random where that is asked for.

        Law: without ``augmentation`` the raster of each recording sums to its number of events.
        """
        lengths = self.starts[chosen + 1] - self.starts[chosen]
        of = np.repeat(np.arange(len(chosen)), lengths)
        event = np.arange(len(of)) + np.repeat(self.starts[chosen] - np.cumsum(lengths) + lengths, lengths)
        y, x, time = self.y[event], self.x[event], self.time[event]
        kept = np.ones(len(event), bool)
        if augmentation is not None:
            y, x = _moved(y, x, of, len(chosen), size=self.shape[1:], augmentation=augmentation, rng=rng)
            kept = (y >= 0) & (y < self.shape[1]) & (x >= 0) & (x < self.shape[2])
            kept &= rng.random(len(event)) >= rng.uniform(0.0, augmentation.event_drop, len(chosen))[of]
            if self.has_phase:
                time = time + rng.random(len(chosen))[of]
        channels, height, width = self.shape
        place = ((np.floor(time).astype(np.int64) * len(chosen) + of) * channels + self.channel[event]) * height + y
        counts = np.bincount(
            (place * width + x)[kept], minlength=self.n_steps * len(chosen) * channels * height * width
        )
        return counts.reshape(self.n_steps, len(chosen), channels, height, width).astype(np.float32)


def _moved(
    y: NDArray[np.int64],
    x: NDArray[np.int64],
    of: NDArray[np.int64],
    n: int,
    *,
    size: tuple[int, int],
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions under one random affine map per recording, about the middle of the sensor."""
    angle = np.deg2rad(rng.uniform(-1, 1, n) * augmentation.rotation_deg)
    scale = np.exp(rng.uniform(-1, 1, n) * augmentation.stretch)
    shear = rng.uniform(-1, 1, n) * augmentation.stretch
    shift_y, shift_x = rng.uniform(-1, 1, (2, n)) * augmentation.shift * min(size)
    cos, sin = (np.cos(angle) * scale)[of], (np.sin(angle) * scale)[of]
    middle_y, middle_x = (size[0] - 1) / 2, (size[1] - 1) / 2
    dy, dx = y - middle_y, x - middle_x
    moved_y = sin * dx + cos * dy + middle_y + shift_y[of]
    moved_x = cos * dx + (shear[of] - sin) * dy + middle_x + shift_x[of]
    chance_y, chance_x = rng.random((2, len(y)))
    return np.floor(moved_y + chance_y).astype(np.int64), np.floor(moved_x + chance_x).astype(np.int64)


def collect(net: SpikingNet, recordings: Recordings, *, dt_us: int) -> Samples:
    """Return the recordings as ``Samples`` for ``net``; a 1-channel net merges polarities.

    Shapes: ``recordings`` are event recordings, binned in steps of ``dt_us``, or a raster ``[T, N, C, H, W]`` of whole
    event counts, which keeps its steps.
    Raises: InputError that lists every recording which does not suit the net.
    """
    if isinstance(recordings, np.ndarray):
        return _of_raster(net, recordings)
    _check(net, recordings)
    times = [events.from_zero().t_us / dt_us for events in recordings]
    longest = max(int(time[-1]) for time in times)
    n_steps = longest + 2  # the last step of the longest one, and one for its random phase
    _check_cells(net, n_steps)
    is_merged = net.input_shape[0] == 1
    return Samples(
        channel=np.concatenate([np.zeros(len(e), np.int64) if is_merged else e.p.astype(np.int64) for e in recordings]),
        y=np.concatenate([events.y.astype(np.int64) for events in recordings]),
        x=np.concatenate([events.x.astype(np.int64) for events in recordings]),
        time=np.concatenate(times),
        starts=np.cumsum([0, *(len(events) for events in recordings)]),
        shape=net.input_shape,
        n_steps=n_steps,
        has_phase=True,
    )


def _of_raster(net: SpikingNet, raster: NDArray[Any]) -> Samples:
    if raster.ndim != 5 or raster.shape[2:] != net.input_shape or 0 in raster.shape:
        raise InputError(
            f"raster: expected shape [T, N, {', '.join(map(str, net.input_shape))}] for this net, found "
            f"{list(raster.shape)}. Try one raster for all recordings, time first."
        )
    is_number = raster.dtype.kind in "biu" or (raster.dtype.kind == "f" and bool(np.isfinite(raster).all()))
    if not is_number:
        raise InputError("raster: expected finite numbers, found NaN, infinity or no numbers. Try event counts.")
    if (raster < 0).any() or (raster != np.rint(raster)).any():
        raise InputError(
            "raster: expected whole event counts of 0 or more, found others. Try an event raster, or spread the frames "
            "over time as events first."
        )
    _check_cells(net, len(raster))
    by_sample = np.asarray(raster, np.int64).swapaxes(0, 1)
    sample, time, channel, y, x = np.nonzero(by_sample)
    repeat = by_sample[sample, time, channel, y, x]
    sample, time, channel, y, x = (np.repeat(axis, repeat) for axis in (sample, time, channel, y, x))
    starts = np.cumsum([0, *np.bincount(sample, minlength=raster.shape[1])])
    return Samples(channel, y, x, time.astype(np.float64), starts, net.input_shape, len(raster), has_phase=False)


def _check(net: SpikingNet, recordings: Sequence[Events]) -> None:
    height, width = net.input_shape[1:]
    if net.input_shape[0] > 2:
        raise InputError(
            f"net: expected 1 or 2 input channels for event recordings, found {net.input_shape[0]}. Try a raster."
        )
    if not len(recordings):
        raise InputError("recordings: expected at least one, found none. Try another data set.")
    sizes = {f"{events.sensor_size[0]}x{events.sensor_size[1]}" for events in recordings}
    problems = []
    if sizes != {f"{height}x{width}"}:
        found = ", ".join(sorted(sizes))
        problems.append(f"recordings: expected a sensor of {height}x{width} as the net's input, found {found}.")
    silent = [index for index, events in enumerate(recordings) if not len(events)]
    if silent:
        problems.append(f"recordings: expected at least one event in each, found none in number {silent[0]}.")
    if problems:
        raise InputError(f"{' '.join(problems)} Try recordings of the sensor that the net was made for.")


def _check_cells(net: SpikingNet, n_steps: int) -> None:
    cells = n_steps * max(
        int(np.prod(shape)) for shape in (net.input_shape, *(layer.out_shape for layer in net.layers))
    )
    if cells > MAX_CELLS:
        raise InputError(
            f"recordings: expected at most {MAX_CELLS:,} neuron steps in the largest layer, found {cells:,} "
            f"({n_steps:,} steps). Try longer steps (dt_us), or shorter recordings."
        )
