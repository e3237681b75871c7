"""What the commands of conversion are given: the network from wherever it comes, and calibration data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.arrays import ArrayRecord
from spikeport.models.events import Events

from .capture import capture
from .errors import CalibrationDataError, InputError
from .evaluate import module_outputs
from .geometry import Shape3
from .graph import Graph, Input

if TYPE_CHECKING:
    import torch

MAX_FRAMES = 512
"""Calibration recordings that are read, and no more of them simulated."""

_MAX_INPUTS = 2**26


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A network to convert: its graph, what computes the outputs of what was given, and what is known of it.

    ``given`` is None where only the graph can be run (ONNX).
    """

    graph: Graph
    given: Callable[[torch.Tensor], torch.Tensor] | None
    classes: tuple[str, ...]
    is_untrained: bool


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Calibration(ArrayRecord):
    """Frames to set scales by, and the labelled recordings they are sums of, where there are any.

    Shapes: ``frames`` ``[N, ...]`` as the network takes them; ``labels`` ``[N]`` or None.
    """

    frames: NDArray[Any]
    recordings: tuple[Events, ...] = ()
    labels: NDArray[np.int64] | None = None


def open_source(network: str, *, weights: Path | None, input_shape: str | None) -> Source:
    """Return the network of a zoo name, ``file.py:function``, ``package.module:function``, ``.pt2`` or ``.onnx`` file.

    Raises: ModelNameError, NetworkFileError, NetFileError, WeightsFileError, CaptureError; InputError for a shape that
    is missing or no shape.
    """
    from spikeport.models.weights import load_weights
    from spikeport.models.zoo import load_network

    wanted = None if input_shape is None else parse_shape(input_shape)
    if is_file(network, ".onnx"):
        from .exchange.onnx_in import load_onnx

        if weights is not None:
            raise InputError(f"--weights: {Path(network).name} holds its weights. Try without --weights.")
        return Source(load_onnx(network, input_shape=wanted), None, (), is_untrained=False)
    entry = load_network(network)
    shape = wanted or entry.input_shape
    if shape is None:
        raise InputError(f"network '{network}': expected --input-shape channels,height,width, found none.")
    if weights is not None:
        load_weights(entry.module, weights)
    graph = capture(entry.module, shape)
    first = graph.nodes[0]
    given_shape = first.given_shape if isinstance(first, Input) else shape

    def given(batch: torch.Tensor) -> torch.Tensor:
        return module_outputs(entry.module, batch, given_shape)

    is_untrained = weights is None and not is_file(network, ".pt2")
    return Source(graph, given, entry.classes, is_untrained)


def is_file(network: str, suffix: str) -> bool:
    """Return whether a network is given as a file of that kind."""
    return Path(network).suffix.lower() == suffix


def parse_shape(text: str) -> tuple[int, ...]:
    """Return one to three numbers: ``channels,height,width``, ``channels,length``, or the length of a vector."""
    parts = text.replace("x", ",").split(",")
    if len(parts) > 3 or not all(part.strip().isdecimal() and 0 < len(part.strip()) <= 9 for part in parts):
        raise InputError(f"--input-shape: expected one to three positive numbers such as 2,34,34, found '{text:.60}'.")
    shape = tuple(map(int, parts))
    if not 0 < math.prod(shape) <= _MAX_INPUTS:
        raise InputError(f"--input-shape: expected 1 to {_MAX_INPUTS} inputs, found '{text}'. Try 2,34,34.")
    return shape


def parse_bound(text: str) -> float | None:
    """Return a lower bound of the potential: a number, or None for 'none'."""
    if text.strip().lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--v-min: expected a number of 0 or less, none or auto, found '{text}'. Try -1.") from None


def read_calibration(data: str, shape: Shape3) -> Calibration:
    """Return the calibration data of a spec: an .npz with 'frames', or recordings, summed over their whole length.

    Raises: CalibrationDataError where the sensor is not the network's input; the rest as ``open_dataset``.
    """
    from spikeport.models.data import digits, frames_of, open_dataset

    if data.endswith(".npz"):
        from spikeport.models.files import read_frames

        frames = read_frames(data)
        if frames is not None:
            return Calibration(frames)
    if data == "digits":  # no more of them are simulated than are used
        found = digits("train", n=MAX_FRAMES, size=shape[1])
    else:
        found = open_dataset(data, split="train", size=shape[1])
    recordings = found.recordings[:MAX_FRAMES]
    sizes = {recording.sensor_size for recording in recordings}
    if sizes != {shape[1:]}:
        raise CalibrationDataError(
            f"calibration data '{data}': expected a sensor of {shape[1]}x{shape[2]} as the CNN's input, found "
            f"{', '.join('x'.join(map(str, size)) for size in sorted(sizes))}. "
            "Try data of the sensor that it was trained on."
        )
    frames = np.asarray(frames_of(recordings, merge_polarity=shape[0] == 1))
    labels = np.asarray(found.labels, np.int64)[:MAX_FRAMES]
    return Calibration(frames, recordings, labels if len(labels) == len(recordings) and (labels >= 0).all() else None)
