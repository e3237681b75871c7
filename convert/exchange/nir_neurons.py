"""NIR's neuron nodes as integrate-and-fire neurons, or the reason why not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.errors import InputError
from spikeport.convert.geometry import Shape3

from .nir_file import NirNode

DT_S = 1e-4
"""The time step that snnTorch and SpikingJelly put into their files where the user names none."""

SLOW_TAU_S = 1000.0
"""From this time constant on a leak is none: a recording of one second takes a thousandth of a potential."""

_LARGEST_GAIN = 100.0
"""A larger ``r`` is no gain that somebody chose but one over a time step."""

REPLACEMENTS = ("lif=if",)

NEURONS = ("IF", "LIF", "CubaLIF", "CubaLI", "LI", "I", "Threshold")

_NO_COUNTERPART = {
    "CubaLIF": ("its current and its potential decay", "Try integrate-and-fire neurons (IF), and train again."),
    "CubaLI": ("its current and its potential decay", "Try integrate-and-fire neurons (IF), and train again."),
    "LI": ("it decays and never spikes", "Try to leave it out: the class with the most spikes is read out."),
    "I": ("it never spikes", "Try to leave it out, or an IF with a threshold: neurons are read out by their spikes."),
    "Threshold": ("it fires without a potential that is kept", "Try an IF node in its place."),
}


class RefusedError(Exception):
    """What is wrong with one node, as reason and fix; the reader collects them."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason}. {fix}")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the user wants a file read: the time step, the lower bound where none is kept, and what is replaced."""

    dt_s: float | None = None
    v_min: float | None = None
    replace: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dt_s is not None and not 0 < self.dt_s < float("inf"):
            raise InputError(f"dt_s: expected a time step in seconds, found {self.dt_s}. Try 0.0001.")
        if self.v_min is not None and not -float("inf") < self.v_min <= 0:
            raise InputError(f"v_min: expected 0, a negative number or None, found {self.v_min}. Try -1.0.")
        unknown = sorted(set(self.replace) - set(REPLACEMENTS))
        if unknown:
            known = ", ".join(REPLACEMENTS)
            raise InputError(f"replace: expected some of {known}, found {', '.join(unknown)}. Try {REPLACEMENTS[0]}.")


@dataclasses.dataclass(frozen=True, eq=False)
class Neurons:
    """Integrate-and-fire neurons behind a map: one threshold, and a factor for each feature of what they add up."""

    threshold: float
    v_min: float | None
    v_init: NDArray[np.float32] | None
    factor: NDArray[np.float64] | None
    notes: tuple[str, ...]


def neurons(node: NirNode, shape: Shape3, reading: Reading) -> Neurons:
    """Return the neurons of an ``IF`` node, or of a ``LIF`` node that does not leak, for a map of ``shape``.

    Raises: RefusedError.
    """
    if node.kind in _NO_COUNTERPART:
        raise RefusedError(*_NO_COUNTERPART[node.kind])
    notes: list[str] = []
    gain = _gain_of_lif(node, shape, reading, notes) if node.kind == "LIF" else _gain(node, shape, reading, notes)
    reset = of_each(node, "v_reset", shape, missing=0.0)
    if reset.any():
        found = f"{float(reset.flat[np.argmax(np.abs(reset))]):g}"
        raise RefusedError(
            f"its neurons are reset to {found}, here to what is left over", "Try v_reset 0, and train again."
        )
    if "v_reset" in node.fields and node.metadata.get("reset") != "subtract":
        notes.append("keeps what is left over the threshold; a writer that sets the potential to 0 loses it")
    threshold = of_each(node, "v_threshold", shape) / gain
    if not (threshold > 0).all():
        raise RefusedError(f"its threshold is {float(threshold.min()):g}, not above 0", "Try a positive threshold.")
    bound, start = _bound(node.metadata, reading.v_min), _start(node.metadata, shape)
    if (threshold == threshold[0]).all():
        common = float(threshold[0])
        v_min = bound if "v_min" in node.metadata or bound is None else bound * common
        return Neurons(common, v_min, start, None, tuple(notes))
    if "v_min" in node.metadata or start is not None:
        raise RefusedError(
            "a lower bound or initial state besides several thresholds", "Try one threshold for the layer."
        )
    notes.append("one threshold for each feature, into the weights")
    return Neurons(1.0, bound, None, 1 / threshold, tuple(notes))


def of_each(node: NirNode, key: str, shape: Shape3, *, missing: float | None = None) -> NDArray[np.float64]:
    """Return a parameter for each feature ``[F]``; NIR keeps one for each neuron."""
    value = node.fields.get(key, missing)
    if value is None or isinstance(value, str):
        raise RefusedError(f"its {key} is not there", "Try writing the file again.")
    array = np.asarray(value, np.float64)
    if np.isnan(array).any():
        raise RefusedError(f"its {key} holds NaN", "Try writing the file again.")
    if array.size == 1:
        return np.full(shape[0], array.item())
    if array.size != np.prod(shape):
        raise RefusedError(f"its {key} is for {array.size} neurons, expected {np.prod(shape)}", "Try writing it again.")
    by_feature = array.reshape(shape[0], -1)
    if (by_feature != by_feature[:, :1]).any():
        raise RefusedError(f"its {key} differs within a feature", "Try one value for each feature.")
    return np.asarray(by_feature[:, 0])


def _gain(node: NirNode, shape: Shape3, reading: Reading, notes: list[str]) -> NDArray[np.float64]:
    """Return what an input of 1 adds to a potential in one step."""
    r = of_each(node, "r", shape)
    if not ((r > 0) & np.isfinite(r)).all():
        raise RefusedError(f"its r is {float(r.min()):g}", "Try an r of 1.")
    if reading.dt_s is not None:
        return r * reading.dt_s
    if np.allclose(r * DT_S, 1, rtol=1e-5, atol=0):
        notes.append(f"its r stands for a time step of {DT_S * 1e3:g} ms")
        return np.ones_like(r)
    if r.max() > _LARGEST_GAIN:
        guess = 1 / r.max()
        raise RefusedError(
            f"its r of {float(r.max()):g} is one over a time step", f"Try dt_s={guess:g} or the step it had."
        )
    return r


def _gain_of_lif(node: NirNode, shape: Shape3, reading: Reading, notes: list[str]) -> NDArray[np.float64]:
    tau, r = of_each(node, "tau", shape), of_each(node, "r", shape)
    if not ((tau > 0) & (r > 0)).all():
        raise RefusedError("its tau or r is not above 0", "Try positive ones.")
    is_slow = bool((tau >= SLOW_TAU_S).all())
    if not is_slow and "lif=if" not in reading.replace:
        raise RefusedError(
            f"its potential leaks with a time constant of {float(tau.min()):g} s, neurons here keep it",
            "Try IF neurons and train again, or replace=('lif=if',).",
        )
    if of_each(node, "v_leak", shape, missing=0.0).any():
        raise RefusedError("it leaks to a potential that is not 0", "Try v_leak 0.")
    dt_s = DT_S if reading.dt_s is None else reading.dt_s
    notes.append(f"without its leak, of a time constant of {float(tau.min()):g} s" if not is_slow else "leaks nothing")
    both_endless = np.isinf(tau) & np.isinf(r)  # what snnTorch writes for a beta of 1: r is tau over the time step
    gain = np.ones_like(r)
    np.divide(r * dt_s, tau, out=gain, where=~both_endless)
    if not ((gain > 0) & np.isfinite(gain)).all():
        raise RefusedError("its r and tau give no finite weight to a spike", "Try IF neurons.")
    if not np.allclose(gain, 1, rtol=1e-5, atol=0):
        notes.append(f"a spike adds up to {float(gain.max()):g} of its weight in a step of {dt_s * 1e3:g} ms")
    else:
        gain = np.ones_like(r)  # r was rounded in single precision
    return gain


def _bound(metadata: Mapping[str, Any], given: float | None) -> float | None:
    """Return the lower bound that our own writer kept, in the unit of the weights, or the given one in thresholds."""
    kept = metadata.get("v_min")
    if kept is None:
        return given
    if isinstance(kept, str) and kept == "none":
        return None
    array = np.asarray(kept)
    if array.dtype.kind not in "iuf" or array.size != 1 or not -np.inf < array.item() <= 0:
        raise RefusedError(f"its metadata say v_min {kept!s:.40}", "Try 0, a negative number or 'none'.")
    return float(array.item())


def _start(metadata: Mapping[str, Any], shape: Shape3) -> NDArray[np.float32] | None:
    kept = metadata.get("v_init")
    if kept is None:
        return None
    array = np.asarray(kept)
    if array.dtype.kind != "f" or array.shape != shape or not np.isfinite(array).all():
        raise RefusedError(
            f"its metadata hold a v_init of shape {array.shape}", f"Try finite numbers of shape {shape}."
        )
    return array.astype(np.float32)
