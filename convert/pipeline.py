"""convert(): the visible list of calls from a torch CNN to a spiking net."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .capture import capture
from .errors import CaptureError
from .evaluate import Replacement, agreement, check_rewrite, module_outputs, outputs
from .findings import findings
from .fold import fold, refuse
from .gains import apply_gains, trained_gains
from .graph import Graph, Input
from .normalize import Scaling, calibration_batch, find_gains
from .replace import replace as replace_nodes
from .spiking import to_spiking
from .starts import choose_start, with_start
from .types import Conversion

if TYPE_CHECKING:
    import torch
    from torch import nn

_MAGNITUDES = (1.0, 10.0, 100.0)
"""Of random frames: a bias may keep a layer silent on small ones."""


def convert(
    module: nn.Module,
    input_shape: Sequence[int],
    *,
    data: ArrayLike | None = None,
    scaling: Scaling | None = None,
    v_min: float | Literal["auto"] | None = "auto",
    replace: Sequence[str] = (),
) -> Conversion:
    """Return the spiking net of a plain CNN, with one finding per node of the CNN.

    Without ``data`` the weights keep their scale: threshold 1, as sinabs' ``from_model`` does. With ``data`` the
    percentile of each layer's activations becomes ``scaling.spikes`` spikes (see ``Scaling``). A net that ends in a
    weight layer gets a spiking output layer, said in its finding. ``replace`` names what may stand in for layers
    without spiking counterpart, ``maxpool=avgpool`` for example; ``Conversion.replacement`` says what that changed.
    Shapes: ``input_shape`` is ``(C, H, W)``, or ``(C, L)`` for a Conv1d net, or ``(N,)``; ``data`` holds frames
    such as the CNN was trained on, ``[N, *input_shape]``.
    Units: ``v_min`` is the lower bound of the potential in thresholds (None: no bound; auto: -1, but none for a CNN
    with biases and ``data``, see ``starts.choose_start``).
    Law: the CNN after each rewrite is a multiple of the given one on every calibration frame (``Conversion.gates``).
    Raises: CaptureError, UnsupportedLayerError, WeightValueError, CalibrationError; InvalidNetError for a ``v_min``
    above 0 or a CNN without weight layers.
    """
    graph = capture(module, input_shape)
    shape = _input(graph).given_shape

    def given(batch: torch.Tensor) -> torch.Tensor:
        return module_outputs(module, batch, shape)

    return convert_graph(graph, data=data, scaling=scaling, v_min=v_min, replace=replace, given=given)


def convert_graph(
    graph: Graph,
    *,
    data: ArrayLike | None = None,
    scaling: Scaling | None = None,
    v_min: float | Literal["auto"] | None = "auto",
    replace: Sequence[str] = (),
    given: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Conversion:
    """Return the spiking net of a captured graph, of an ONNX file for example; the rest as ``convert``.

    ``given`` computes the outputs of what was captured, ``[N, outputs]`` for ``[N, C, H, W]``; without it the gates
    compare with the captured graph.
    """
    scaling = scaling or Scaling()
    frames = _random_frames(graph) if data is None else calibration_batch(data, _input(graph))
    batch = _tensor(frames)
    plain, replaced = replace_nodes(graph, tuple(replace))
    refuse(plain)
    before = given(batch) if given else None
    reference = outputs(plain, batch) if replaced or before is None else before
    folded = fold(plain)
    gates = [check_rewrite(step.name, step.graph, given=reference, batch=batch) for step in folded.steps]
    scaling, v_min = choose_start(folded.graph, scaling, v_min, is_calibrated=data is not None)
    gains = trained_gains(folded.graph) if data is None else find_gains(folded.graph, frames, scaling)
    scaled, gain = apply_gains(folded.graph, gains)
    gates.append(check_rewrite("activations to spike counts", scaled, given=reference, batch=batch, gain=gain))
    net = to_spiking(scaled, v_min=v_min, n_steps=scaling.n_steps)
    net = with_start(net, scaled, frames=frames, scaling=scaling)
    return Conversion(
        graph=graph,
        scaled=scaled,
        net=net,
        findings=findings(graph, scaled, notes=folded.notes, replaced=replaced),
        gates=tuple(gates),
        replacement=_replacement(replaced, before, reference),
    )


def _replacement(replaced: Mapping[str, str], before: torch.Tensor | None, after: torch.Tensor) -> Replacement | None:
    if not replaced:
        return None
    same = None if before is None else agreement(before, after)
    return Replacement(tuple(sorted(set(replaced.values()))), tuple(replaced), len(after), same)


def _input(graph: Graph) -> Input:
    first = graph.nodes[0]
    if not isinstance(first, Input):
        raise CaptureError(f"expected a graph that starts with its input, found '{first.name}' ({first.label}).")
    return first


def _random_frames(graph: Graph) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return np.concatenate([high * rng.random((8, *graph.input_shape), dtype=np.float32) for high in _MAGNITUDES])


def _tensor(frames: NDArray[np.float32]) -> torch.Tensor:
    import torch

    return torch.from_numpy(frames.copy())
