"""Accuracy of a spiking net over time steps, and the spikes and synops that they cost."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.evaluate import outputs
from spikeport.convert.simulate import simulate
from spikeport.convert.synops import count_synops
from spikeport.convert.types import Conversion, SpikingNet


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """A net on the first ``n_steps`` of each recording.

    Units: ``spikes`` of all layers and ``synops`` are means over the recordings (synops None where the input is no
    events); ``accuracy`` is the share of right classes (None without labels), ``agreement`` the share of those that the
    CNN gives for the whole recording.
    """

    n_steps: int
    spikes: float
    synops: float | None
    agreement: float
    accuracy: float | None


def accuracy_curve(
    net: SpikingNet, raster: NDArray[Any], *, answers: NDArray[np.int64], labels: NDArray[Any] | None = None
) -> tuple[CurvePoint, ...]:
    """Return a point for 1, 2, 4, ... and all steps of the recordings; none where the net has no classes.

    ``answers`` are the classes that the CNN gives, ``labels`` the true ones.
    Shapes: ``raster`` is ``[T, B, C, H, W]``, ``answers`` and ``labels`` are ``[B]``.
    """
    if net.output_shape is None:
        return ()
    n_steps, n = raster.shape[:2]
    is_events = bool(np.all(raster == np.rint(raster)) and np.all(raster >= 0))
    lengths = sorted({2**k for k in range(math.floor(math.log2(n_steps)) + 1)} | {n_steps})
    points = []
    for length in lengths:
        trace = simulate(net, raster[:length])
        given = trace.predictions()
        points.append(
            CurvePoint(
                n_steps=length,
                spikes=sum(int(counts.sum()) for counts in trace.counts) / n,
                synops=count_synops(net, trace).total / n if is_events else None,
                agreement=float((given == answers).mean()),
                accuracy=None if labels is None else float((given == labels).mean()),
            )
        )
    return tuple(points)


def cnn_answers(conversion: Conversion, raster: NDArray[Any]) -> NDArray[np.int64]:
    """Return the class that the CNN gives for the sum of each recording.

    Shapes: ``raster`` is ``[T, B, C, H, W]``, the result ``[B]``.
    """
    import torch

    frames = raster.sum(axis=0, dtype=np.float64)
    parts = [torch.from_numpy(frames[i : i + 64].copy()) for i in range(0, len(frames), 64)]
    found = [outputs(conversion.scaled, part).argmax(1).numpy() for part in parts]
    return np.concatenate(found)
