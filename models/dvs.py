"""A simulated event camera: log-intensity changes of a frame stack, and an image under three saccades."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import EventsError
from .events import Events

Pixels = tuple[float, float]
_Counts = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class DvsModel:
    """The pixel of an event camera.

    A pixel fires when the logarithm of ``intensity + dark_level`` has moved by its threshold since its last reset; it
    is then blind for ``refractory_us`` and starts again from what it sees at the end of that time. On top comes
    background activity: events of random polarity, uniform over pixels and time.

    Units: ``threshold`` is a difference of natural logarithms, ``threshold_spread`` the standard deviation of the
    thresholds over the pixels relative to it, ``noise_hz`` background events per pixel and second, ``dark_level`` on
    the scale of the intensities (1 is white).
    Source: chosen so that simulated digits have the event count, burst length and intervals of the N-MNIST
    recordings; ``tests/models/test_dvs.py`` compares them.
    """

    threshold: float = 0.23
    threshold_spread: float = 0.2
    refractory_us: float = 1800.0
    noise_hz: float = 0.3
    dark_level: float = 0.15

    def __post_init__(self) -> None:
        for name, low in (("threshold", 1e-3), ("dark_level", 1e-6)):
            _require(name, getattr(self, name), low)
        for name in ("threshold_spread", "refractory_us", "noise_hz"):
            _require(name, getattr(self, name), 0.0)


@dataclasses.dataclass(frozen=True)
class SaccadePath:
    """Where an image moves: along the sides of a triangle, one saccade per side, at rest in each corner.

    Units: ``corners`` are displacements ``(x, y)`` from the center in pixels of the image, right and down positive;
    ``wobble`` is the standard deviation of each corner coordinate from recording to recording.
    Source: corners, pauses and the smooth (minimum-jerk) speed follow the centers of gravity and event rates of the
    N-MNIST training recordings over time.
    """

    corners: tuple[Pixels, Pixels, Pixels] = ((-3.0, -2.0), (0.0, 3.5), (3.0, -2.0))
    saccade_us: int = 100_000
    pause_us: int = 7_000
    step_us: int = 4_000
    wobble: float = 0.3

    def __post_init__(self) -> None:
        _require("step_us", self.step_us, 1)
        _require("saccade_us", self.saccade_us, 2 * self.pause_us + self.step_us)
        _require("pause_us", self.pause_us, 0)
        _require("wobble", self.wobble, 0.0)


def simulate_dvs(frames: ArrayLike, times_us: ArrayLike, *, model: DvsModel | None = None, seed: int = 0) -> Events:
    """Return the events that a camera sees in a stack of frames, the logarithm of intensity linear in between.

    Shapes: ``frames`` is ``[T, H, W]`` of intensities of 0 or more, ``times_us`` ``[T]`` and increasing.
    Units: event times are on the scale of ``times_us``, rounded down to whole microseconds.
    Law: without refractory time, spread and noise, ``threshold`` times the sum of a pixel's signed events is
    within one threshold of its total change of log intensity. Inverting the log intensities swaps the polarities.
    Raises: EventsError where shapes differ, a frame is negative or not finite, times do not increase, or the seed is
    negative.
    """
    model = model or DvsModel()
    stack, times = np.asarray(frames, np.float64), np.asarray(times_us, np.float64)
    _check_stack(stack, times)
    rng = _generator(seed, 1)
    height, width = stack.shape[1:]
    spread = 1.0 + model.threshold_spread * rng.standard_normal((height, width))
    thresholds = model.threshold * np.clip(spread, 0.2, None)
    found = _crossings(np.log(stack + model.dark_level), times, thresholds, model.refractory_us)
    start, stop = float(times[0]), float(times[-1])
    n_noise = rng.poisson(model.noise_hz * 1e-6 * (stop - start) * height * width)
    noise = rng.integers([math.floor(start), 0, 0, 0], [math.ceil(stop), height, width, 2], (n_noise, 4))
    # One integer per event sorts by time, then row, column and polarity: the same order on every machine.
    t, y, x, p = np.concatenate([found, noise]).T
    keys = np.sort(((t * height + y) * width + x) * 2 + p)
    rest, p = np.divmod(keys, 2)
    rest, x = np.divmod(rest, width)
    t, y = np.divmod(rest, height)
    return Events(x, y, p, t, (height, width))


def saccade_recording(
    image: ArrayLike,
    *,
    seed: int,
    sensor_size: int = 34,
    model: DvsModel | None = None,
    path: SaccadePath | None = None,
) -> Events:
    """Return a recording like N-MNIST's of a square image under three saccades.

    Strokes are shown dark on bright, so that the leading edge of a stroke is off and the trailing edge on: that is
    how the polarities of N-MNIST lie. On another sensor than 34 x 34 the image and its path are scaled with it.

    Shapes: ``image`` is ``[S, S]`` of 0..255 (integers) or 0..1 (floats), strokes bright; 28 x 28 in N-MNIST.
    Law: a pure function of its arguments: the same seed gives the same events whatever else is simulated.
    Raises: EventsError where the image is not square or has values outside its range, or the sensor is too small.
    """
    model, path = model or DvsModel(), path or SaccadePath()
    picture = _checked_image(image, sensor_size)
    rng = _generator(seed, 0)
    corners = np.asarray(path.corners) + path.wobble * rng.standard_normal((3, 2))
    shifts, times = _trajectory(corners, path)
    frames = _moved(picture, shifts, sensor_size)
    return simulate_dvs(frames, times, model=model, seed=seed)


def saccade_recordings(
    images: Sequence[ArrayLike] | NDArray[Any],
    seeds: Sequence[int],
    *,
    sensor_size: int = 34,
    model: DvsModel | None = None,
    path: SaccadePath | None = None,
) -> tuple[Events, ...]:
    """Return ``saccade_recording`` of each image with its own seed."""
    return tuple(
        saccade_recording(image, seed=seed, sensor_size=sensor_size, model=model, path=path)
        for image, seed in zip(images, seeds, strict=True)
    )


def _trajectory(corners: NDArray[np.float64], path: SaccadePath) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the displacement ``[T, 2]`` and the time ``[T]`` of each frame."""
    per_saccade = max(1, round(path.saccade_us / path.step_us))
    times = np.linspace(0, 3 * path.saccade_us, 3 * per_saccade + 1)
    side = np.minimum(times // path.saccade_us, 2).astype(np.int64)
    within = times - side * path.saccade_us - path.pause_us
    s = np.clip(within / (path.saccade_us - 2 * path.pause_us), 0, 1)[:, None]
    progress = s**3 * (10 - 15 * s + 6 * s * s)  # minimum jerk: no jump in speed or acceleration at either end
    start, stop = corners[side], corners[(side + 1) % 3]
    return start + (stop - start) * progress, times


def _moved(picture: NDArray[np.float64], shifts: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the inverted picture at each displacement, ``[T, size, size]``, by bilinear interpolation."""
    edge = picture.shape[0]
    scale = size / 34.0 * 28.0 / edge
    pixels = (np.arange(size) - (size - 1) / 2) / scale + (edge - 1) / 2
    source = pixels - shifts[:, :, None] * (edge / 28.0)
    low = np.floor(source).astype(np.int64)
    part = source - low
    low = np.clip(low, -2, edge) + 2
    padded = np.pad(picture, 2)  # two blank pixels on each side: what is beyond the picture is blank
    rows, row_part = low[:, 1], part[:, 1, :, None]
    mixed = padded[rows] * (1 - row_part) + padded[rows + 1] * row_part
    columns, column_part = low[:, 0][:, None, :], part[:, 0][:, None, :]
    left = np.take_along_axis(mixed, columns, 2)
    return np.asarray(1.0 - left * (1 - column_part) - np.take_along_axis(mixed, columns + 1, 2) * column_part)


def _crossings(
    logs: NDArray[np.float64], times: NDArray[np.float64], thresholds: NDArray[np.float64], refractory_us: float
) -> _Counts:
    """Return one row ``(t, y, x, p)`` per threshold crossing, in no particular order."""
    out = np.empty((8192, 4), np.int64)
    while True:
        n_events = _kernel()(logs, times, thresholds, refractory_us, out)
        if n_events <= len(out):
            return out[:n_events]
        out = np.empty((n_events, 4), np.int64)


@functools.cache
def _kernel() -> Callable[..., int]:
    import numba

    compiled: Callable[..., int] = numba.njit(cache=True)(cross_pixels)
    return compiled


def cross_pixels(
    logs: NDArray[np.float64],
    times: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    refractory_us: float,
    out: NDArray[np.int64],
) -> int:
    """Fill ``out`` with the crossings of all pixels and return how many there are, also where they do not fit."""
    n = 0
    for y in range(logs.shape[1]):
        for x in range(logs.shape[2]):
            threshold = thresholds[y, x]
            reference = logs[0, y, x]
            release = times[0]
            for k in range(1, len(times)):
                before, after = logs[k - 1, y, x], logs[k, y, x]
                begin, end = times[k - 1], times[k]
                if before == after or release >= end:
                    if release >= begin and release <= end:
                        reference = after
                    continue
                slope = (after - before) / (end - begin)
                if release >= begin:
                    reference = before + slope * (release - begin)
                sign = 1.0 if slope > 0 else -1.0
                while (after - reference) * sign >= threshold:
                    level = reference + sign * threshold
                    at = min(max(begin + (level - before) / slope, begin), end)
                    if n < len(out):
                        out[n, 0] = int(at)
                        out[n, 1] = y
                        out[n, 2] = x
                        out[n, 3] = 1 if sign > 0 else 0
                    n += 1
                    reference = level
                    if refractory_us > 0:
                        release = at + refractory_us
                        if release >= end:
                            break
                        reference = before + slope * (release - begin)
    return n


def _require(name: str, value: float, low: float) -> None:
    if not (math.isfinite(value) and value >= low):
        raise EventsError(f"{name}: expected a finite number of at least {low:g}, found {value!r}. Try the default.")


def _generator(seed: int, stream: int) -> np.random.Generator:
    if seed < 0:
        raise EventsError(f"seed: expected 0 or more, found {seed}. Try {-seed}.")
    return np.random.default_rng([seed, stream])


def _check_stack(stack: NDArray[np.float64], times: NDArray[np.float64]) -> None:
    if stack.ndim != 3 or times.shape != stack.shape[:1] or len(times) < 2:
        raise EventsError(
            f"frames: expected shape [T, H, W] with one time per frame and T of 2 or more, found {list(stack.shape)} "
            f"and times {list(times.shape)}. Try two frames or more."
        )
    if not np.isfinite(stack).all() or (stack < 0).any():
        raise EventsError("frames: expected finite intensities of 0 or more. Try frames - frames.min().")
    if not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) <= 0).any():
        raise EventsError("times_us: expected times of 0 or more that increase from frame to frame. Try numpy.arange.")


def _checked_image(image: ArrayLike, sensor_size: int) -> NDArray[np.float64]:
    given = np.asarray(image)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or given.size == 0:
        raise EventsError(f"image: expected a square [S, S], found {list(given.shape)}. Try padding or cropping it.")
    if sensor_size < 8:
        raise EventsError(f"sensor_size: expected an edge of 8 pixels or more, found {sensor_size}. Try 34.")
    top = 255.0 if np.issubdtype(given.dtype, np.integer) else 1.0
    picture = given.astype(np.float64) / top
    if not np.isfinite(picture).all() or picture.min() < 0 or picture.max() > 1:
        raise EventsError(f"image: expected {given.dtype} values in 0..{top:g}, found others. Try rescaling it.")
    return picture
