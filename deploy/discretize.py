"""SpikingNet to the chip's integers: by the formula of the vendor library, or fitted to what the layers read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Pair
from spikeport.convert.grid import BIAS_BITS, STATE_BITS, WEIGHT_BITS, layer_scale, to_integers
from spikeport.convert.types import SpikingLayer, SpikingNet

from .activity import Activity, Moments, layer_moments
from .chips import NUMBERS
from .errors import SettingError
from .rounding import Fitted, Grid, fit
from .types import INT16, IntegerLayer, IntegerNet

Rounding = Literal["vendor", "fitted"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FittedNet(SpikingNet):
    """A spiking net whose integers are to be fitted to ``activity`` (None: to what can be assumed of any net)."""

    activity: Activity | None = None


def fitted(net: SpikingNet, activity: Activity | None = None) -> FittedNet:
    """Return ``net`` such that ``plan`` and ``compile_program`` fit its integers; nothing else about it changes.

    Raises: SettingError where ``activity`` is of another net.
    """
    if activity is not None:
        _checked(net, activity)
    return FittedNet(net.layers, net.edges, net.input_shape, activity)


def fitted_like(net: SpikingNet, given: SpikingNet) -> SpikingNet:
    """Return ``net``, into which ``given`` was rewritten, fitted where that is.

    A layer keeps its activity where it reads as before: the same channels in the same places.
    """
    if not isinstance(given, FittedNet):
        return net
    if given.activity is None:
        return fitted(net)
    before = {layer.name: _reads(given, index) for index, layer in enumerate(given.layers)}
    alike = {layer.name for index, layer in enumerate(net.layers) if before.get(layer.name) == _reads(net, index)}
    kept = {name: moments for name, moments in given.activity.moments.items() if name in alike}
    return fitted(net, dataclasses.replace(given.activity, moments=kept))


def _reads(net: SpikingNet, index: int) -> tuple[object, ...]:
    layer = net.layers[index]
    shifts = tuple(edge.feature_shift for edge in net.incoming(index))  # relays keep the order of edges
    return layer.in_shape, layer.groups, layer.weight.shape[1:], shifts


def discretize(net: SpikingNet, *, method: Rounding | None = None, activity: Activity | None = None) -> IntegerNet:
    """Return the net in integers: each layer scaled by one factor, then rounded.

    By ``vendor`` the factor is the largest that keeps weights and biases within 8 bits and both thresholds within 16,
    and every value goes to the nearest integer. A ``v_min`` of None becomes the lowest number after scaling (the vendor
    library puts that in before, which leaves no bits for the weights); one that rounds to 0 becomes -1, because the
    register cannot hold 0. Potentials before the first event are clipped to the lower threshold and to one below the
    upper; ``plan`` warns where that changes them.

    By ``fitted`` the threshold is a whole number and the factor follows from it; factor, clipped weights, and which
    weights go up or down are those that change the charge of the neurons least, for the inputs of ``activity`` (see
    ``trial.fit_to``) or, without it, for inputs of which nothing is known but that spikes are not negative. Biases
    have 16 bits. ``method`` None is ``fitted`` for a ``FittedNet``, else ``vendor``.

    Law: the vendor's integers equal those of the same formula computed by torch in float32, bit for bit. Fitted, a net
    that is exact in the vendor's integers keeps them, and one that is exact in others gets such. Otherwise no weight
    and no bias can take a state between the thresholds out of 16 bits, and where that holds for the vendor's integers
    too, the expected error of the charge is never above theirs. Where a threshold is so far from the other values that
    it leaves the chip's range, the result says so and ``plan`` refuses it.
    Raises: SettingError where ``activity`` is given to the vendor's formula, or is of another net.
    Source: discretization of sinabs 3.1.3; for ``fitted`` see ``rounding.fit``.
    """
    if method is None:
        method = "fitted" if isinstance(net, FittedNet) or activity is not None else "vendor"
    if method not in ("vendor", "fitted"):
        raise SettingError(f"discretize: method: expected 'vendor' or 'fitted', found {method!r}. Try 'fitted'.")
    if method == "vendor":
        if activity is not None:
            raise SettingError(
                "discretize: expected no activity for the vendor's formula, which does not look at it. Try 'fitted'."
            )
        return IntegerNet(tuple(map(discretize_layer, net.layers)), net.edges, net.input_shape)
    if activity is None and isinstance(net, FittedNet):
        activity = net.activity
    moments = {} if activity is None else _checked(net, activity)
    kept = frozenset() if activity is None else activity.kept
    layers = tuple(
        discretize_layer(layer) if layer.name in kept else fit_layer(layer, moments.get(layer.name))
        for layer in net.layers
    )
    return IntegerNet(layers, net.edges, net.input_shape)


def discretize_layer(layer: SpikingLayer) -> IntegerLayer:
    """Return one layer in integers by the vendor's formula; see ``discretize``."""
    scale = layer_scale(layer.weight, layer.bias, threshold=layer.threshold, v_min=layer.v_min)
    bias = None if layer.bias is None else to_integers(layer.bias, scale, BIAS_BITS).astype(np.int16)
    return _integer_layer(
        layer,
        scale,
        weight=to_integers(layer.weight, scale, WEIGHT_BITS).astype(np.int8),
        bias=bias,
        threshold=int(to_integers(layer.threshold, scale)),
    )


def fit_layer(layer: SpikingLayer, measured: Moments | None = None) -> IntegerLayer:
    """Return one layer in integers fitted to what it reads; see ``discretize``.

    Law: where the vendor's threshold is outside the chip's range, so is this one.
    """
    vendor = discretize_layer(layer)
    low, high = NUMBERS.threshold_high
    if not low <= vendor.threshold_high <= high:
        return vendor
    given = Fitted(columns(vendor.weight, vendor.bias), vendor.threshold_high, 0.0)
    found = fit(in_thresholds(layer), layer_moments(layer, measured), _grid(layer), given=given)
    if found.threshold == given.threshold and np.array_equal(found.integers, given.integers):
        return vendor
    weight, bias = found.integers[:, :-1], found.integers[:, -1]
    return _integer_layer(
        layer,
        found.threshold / layer.threshold,
        weight=weight.reshape(layer.weight.shape).astype(np.int8),
        bias=None if layer.bias is None else bias.astype(np.int16),
        threshold=found.threshold,
    )


def columns(weight: NDArray[np.generic], bias: NDArray[np.generic] | None) -> NDArray[np.float64]:
    """Return the weights of each feature in a row, its bias behind them (0 without one): ``[F, K + 1]``."""
    flat = np.asarray(weight, np.float64).reshape(len(weight), -1)
    last = np.zeros((len(flat), 1)) if bias is None else np.asarray(bias, np.float64)[:, None]
    return np.concatenate([flat, last], axis=1)


def in_thresholds(layer: SpikingLayer) -> NDArray[np.float64]:
    """Return weights and bias of a layer in thresholds, as ``columns``."""
    return columns(layer.weight, layer.bias) / layer.threshold


def _checked(net: SpikingNet, activity: Activity) -> Mapping[str, Moments]:
    """Return the moments by layer.

    Raises: SettingError where one has not the shape that its layer needs.
    """
    wrong = []
    for layer in net.layers:
        found = activity.moments.get(layer.name)
        expected = (layer.groups, *(int(np.prod(layer.weight.shape[1:])) + 1,) * 2)
        if found is not None and found.shape != expected:
            wrong.append(f"layer '{layer.name}': expected moments of {expected}, found {found.shape}.")
    if wrong:
        raise SettingError(f"activity: {' '.join(wrong)} Try fit_to(net, raster) of this very net.")
    return activity.moments


def _grid(layer: SpikingLayer) -> Grid:
    """Return the registers of a layer, and the largest threshold for which none and no state can overflow."""
    n_inputs = int(np.prod(layer.weight.shape[1:]))
    largest_weight = 2 ** (WEIGHT_BITS - 1)
    lowest = np.full(n_inputs + 1, -float(largest_weight))
    highest = np.full(n_inputs + 1, largest_weight - 1.0)
    lowest[-1], highest[-1] = INT16
    room = INT16[1] - (largest_weight - 1)  # a state below the threshold, and one more weight
    if layer.bias is not None and layer.bias.any():
        room = min(room, int(INT16[1] / (1 + float(np.abs(layer.bias).max()) / layer.threshold)))
    if layer.v_min:
        room = int(min(float(room), (-INT16[0] - largest_weight) * layer.threshold / -layer.v_min))
    return Grid(lowest, highest, max(1, room))


def _integer_layer(
    layer: SpikingLayer, scale: float, *, weight: NDArray[np.int8], bias: NDArray[np.int16] | None, threshold: int
) -> IntegerLayer:
    lowest, highest = NUMBERS.threshold_low
    low = lowest if layer.v_min is None else min(highest, max(lowest, int(to_integers(layer.v_min, scale))))
    return IntegerLayer(
        name=layer.name,
        weight=weight,
        bias=bias,
        threshold_high=threshold,
        threshold_low=low,
        reset="subtract",
        initial_state=_initial_state(layer, scale, (low, threshold)),
        in_shape=layer.in_shape,
        out_shape=layer.out_shape,
        stride=layer.stride,
        padding=layer.padding,
        scale=scale,
        dilation=layer.dilation,
        upsample=_gaps(layer),
        groups=layer.groups,
    )


def _gaps(layer: SpikingLayer) -> Pair:
    """Return the upsampling that is left on the map of the layer: an axis of one pixel has no room for zeros."""
    y, x = (1 if edge == 1 else up for edge, up in zip(layer.in_shape[1:], layer.upsample, strict=True))
    return y, x


def _initial_state(layer: SpikingLayer, scale: float, thresholds: tuple[int, int]) -> NDArray[np.int16]:
    if layer.v_init is None:
        state = np.zeros(layer.out_shape, np.int16)
    else:
        low, high = thresholds
        state = np.clip(to_integers(layer.v_init, scale, STATE_BITS), low, high - 1).astype(np.int16)
    state.flags.writeable = False  # so that the record keeps it without touching pages of a map too large for any core
    return state
