"""A net as a draft: shapes and routes at once, weights only when asked for, so that many drafts cost little."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Pair, Shape3, Window, pooled
from spikeport.convert.kernels import dense_kernel
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet
from spikeport.deploy.budget import Budget, count_words, fits
from spikeport.deploy.chips import Chip
from spikeport.deploy.relay import repeater
from spikeport.deploy.rules import check_shape
from spikeport.deploy.types import IntegerLayer


@dataclasses.dataclass(frozen=True, eq=False)
class Values:
    """The numbers of a layer; fields as in ``SpikingLayer``."""

    weight: NDArray[np.floating[Any]]
    bias: NDArray[np.floating[Any]] | None
    threshold: float
    v_min: float | None
    v_init: NDArray[np.floating[Any]] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """The shape of a layer for a chip, and a function that gives its numbers.

    ``is_rounded_well`` is False where the layer's threshold leaves the chip's range as an integer. ``is_relay``: it
    only passes spikes on. ``is_rebuilt``: it is no layer of the CNN any more, but a relay, a part of one or several, so
    that nobody can train it. ``is_linear``: in the net as it was given, its kernel covers the whole map, as that of a
    Linear layer does. ``spacing``: the readout block takes one of so many of its features for a class.
    """

    name: str
    window: Window
    in_shape: Shape3
    out_shape: Shape3
    groups: int
    has_bias: bool
    chip: Chip
    values: Callable[[], Values]
    is_rounded_well: bool = True
    is_relay: bool = False
    is_rebuilt: bool = False
    is_linear: bool = False
    spacing: int = 1

    @property
    def features(self) -> int:
        """Number of output features."""
        return self.out_shape[0]

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        return self.features * (self.in_shape[0] // self.groups) * self.window.kernel[0] * self.window.kernel[1]

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return self.features * self.out_shape[1] * self.out_shape[2]

    @property
    def covers_input(self) -> bool:
        """Whether it is a layer that covered its input map as it was given, and still does."""
        return self.is_linear and _covers(self.window, self.in_shape)

    @functools.cached_property
    def budget(self) -> Budget:
        """The memory that it needs, with the features that the readout block asks for between its own."""
        own = count_words(self.integers)
        return dataclasses.replace(own, features=(own.features - 1) * self.spacing + 1)

    @functools.cached_property
    def cores(self) -> tuple[int, ...]:
        """Ids of the cores that are large enough for it."""
        return tuple(core.core for core in self.chip.cores if fits(self.budget, core))

    @functools.cached_property
    def broken_rules(self) -> tuple[str, ...]:
        """The rules of a core that its shape breaks."""
        found = check_shape(self.integers, self.chip.limits)
        return tuple(dict.fromkeys(violation.rule for violation in found))

    @functools.cached_property
    def integers(self) -> IntegerLayer:
        """The layer as the rules of the chip read it: zeros, whose memory is never touched, in the right shapes."""
        channels = self.in_shape[0] // self.groups
        gaps = (1 if edge == 1 else up for edge, up in zip(self.in_shape[1:], self.window.upsample, strict=True))
        return IntegerLayer(
            name=self.name,
            weight=_zeros((self.features, channels, *self.window.kernel), np.int8),
            bias=_zeros((self.features,), np.int16) if self.has_bias else None,
            threshold_high=1,
            threshold_low=-1,
            reset="subtract",
            initial_state=_zeros(self.out_shape, np.int16),
            in_shape=self.in_shape,
            out_shape=self.out_shape,
            stride=self.window.stride,
            padding=self.window.padding,
            scale=1.0,
            dilation=self.window.dilation,
            upsample=(next(gaps), next(gaps)),
            groups=self.groups,
        )

    def layer(self) -> SpikingLayer:
        """Return the layer with its numbers."""
        values = self.values()
        return SpikingLayer(
            name=self.name,
            weight=values.weight,
            bias=values.bias,
            stride=self.window.stride,
            padding=self.window.padding,
            threshold=values.threshold,
            v_min=values.v_min,
            in_shape=self.in_shape,
            out_shape=self.out_shape,
            dilation=self.window.dilation,
            upsample=self.window.upsample,
            groups=self.groups,
            v_init=values.v_init,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Draft:
    """A net whose layers are forms; edges and shapes as in ``SpikingNet``.

    ``spacing`` is that of the layers that lead to the output, whichever these are; the others have 1.
    """

    layers: tuple[Form, ...]
    edges: tuple[Edge, ...]
    input_shape: Shape3
    spacing: int = 1

    def __post_init__(self) -> None:
        ends = {edge.source for edge in self.edges if edge.target is None}
        wanted = [self.spacing if index in ends else 1 for index in range(len(self.layers))]
        if any(form.spacing != spacing for form, spacing in zip(self.layers, wanted, strict=True)):
            layers = (
                form if form.spacing == spacing else dataclasses.replace(form, spacing=spacing)
                for form, spacing in zip(self.layers, wanted, strict=True)
            )
            object.__setattr__(self, "layers", tuple(layers))

    @property
    def chip(self) -> Chip:
        """The chip that it is drawn for."""
        return self.layers[0].chip

    def incoming(self, index: int) -> tuple[Edge, ...]:
        """Return the edges that lead to layer ``index``."""
        return tuple(edge for edge in self.edges if edge.target == index)

    def outgoing(self, index: int) -> tuple[Edge, ...]:
        """Return the edges that leave layer ``index``, or the input."""
        return tuple(edge for edge in self.edges if edge.source == index)

    def source_shape(self, edge: Edge) -> Shape3:
        """Return the shape of what leaves the edge's source, before the edge pools it."""
        return self.input_shape if edge.source == INPUT else self.layers[edge.source].out_shape

    @functools.cached_property
    def key(self) -> tuple[object, ...]:
        """What two drafts of the same shapes and routes have in common."""
        forms = ((f.has_bias, f.window, f.in_shape, f.out_shape, f.groups, f.is_rounded_well) for f in self.layers)
        return (*forms, *sorted(self.edges, key=_position), self.input_shape)

    def net(self) -> SpikingNet:
        """Return the net with its numbers."""
        return SpikingNet(tuple(form.layer() for form in self.layers), self.edges, self.input_shape)

    def put(self, index: int, form: Form) -> Draft:
        """Return the draft with another form at ``index``."""
        return dataclasses.replace(self, layers=(*self.layers[:index], form, *self.layers[index + 1 :]))

    def free_name(self, wanted: str) -> str:
        """Return ``wanted``, with a number behind it where a layer has that name."""
        taken, name, number = {form.name for form in self.layers}, wanted, 2
        while name in taken:
            name, number = f"{wanted}{number}", number + 1
        return name


def draft_of(
    net: SpikingNet,
    chip: Chip,
    *,
    badly_rounded: Collection[str | None] = (),
    relays: Collection[str | None] = (),
    spacing: int = 1,
) -> Draft:
    """Return the draft of a net.

    ``badly_rounded`` names the layers whose threshold leaves the chip's range, ``relays`` those that pass spikes on;
    ``spacing`` is how far apart the readout block wants the classes, 1 without it.
    """
    forms = (_form(layer, chip) for layer in net.layers)
    marked = (
        dataclasses.replace(
            form,
            is_rounded_well=form.name not in badly_rounded,
            is_relay=form.name in relays,
            is_rebuilt=form.name in relays,
            is_linear=form.is_linear and form.name not in relays,
        )
        for form in forms
    )
    return Draft(tuple(marked), net.edges, net.input_shape, spacing)


def values_of(layer: SpikingLayer) -> Values:
    """Return the numbers of a layer."""
    return Values(layer.weight, layer.bias, layer.threshold, layer.v_min, layer.v_init)


def lazy(make: Callable[[], Values]) -> Callable[[], Values]:
    """Return a function that makes the values once."""
    return functools.cache(make)


def dense(form: Form) -> Form:
    """Return the form with one group and no dilation: the same function, with zeros between the weights."""
    if form.groups == 1 and form.window.dilation == (1, 1):
        return form
    (ky, kx), (dy, dx) = form.window.kernel, form.window.dilation
    window = dataclasses.replace(form.window, kernel=(dy * (ky - 1) + 1, dx * (kx - 1) + 1), dilation=(1, 1))

    def values() -> Values:
        given = form.values()
        weight = dense_kernel(given.weight, dilation=form.window.dilation, groups=form.groups)
        return dataclasses.replace(given, weight=weight)

    return dataclasses.replace(form, window=window, groups=1, values=lazy(values))


def redraw(
    draft: Draft,
    changes: Mapping[int, tuple[int, Window]],
    *,
    edges: Sequence[Edge] | None = None,
    input_shape: Shape3 | None = None,
) -> Draft | None:
    """Return the draft in which layers have other features and windows, and all shapes follow; None where none can.

    The kernel of a Linear layer still covers its input map. Weights of a layer whose shape changes are repeated or cut
    to it, so they have the right number and range and nothing else: such a net has to be trained. A part of a layer, or
    several layers as one, cannot be trained, so what it reads keeps its number of channels.
    """
    forms: list[Form] = []
    shape0 = input_shape or draft.input_shape
    routes: list[Edge] = []
    by_target: dict[int | None, list[Edge]] = {}
    for edge in edges if edges is not None else draft.edges:
        by_target.setdefault(edge.target, []).append(edge)
    for index, form in enumerate(draft.layers):
        arriving = _banks(draft, by_target.get(index, []), forms, shape0)
        if arriving is None:
            return None
        in_shape, moved = arriving
        if form.is_rebuilt and not form.is_relay and in_shape[0] != form.in_shape[0]:
            return None
        features, window = changes.get(index, (form.features, form.window))
        if form.is_relay:
            features = in_shape[0]
        if form.covers_input and window.kernel == form.window.kernel:
            window = dataclasses.replace(window, kernel=in_shape[1:])
        height, width = window.out_size(in_shape[1:])
        if min(height, width, features) < 1:
            return None
        forms.append(_reshaped(form, window, in_shape, (features, height, width)))
        routes += moved
    ends = _banks(draft, by_target.get(None, []), forms, shape0, must_agree=False)
    if ends is None:
        return None
    return Draft(tuple(forms), tuple(sorted(routes + ends[1], key=_position)), shape0, draft.spacing)


def _position(edge: Edge) -> tuple[bool, int, int, int, Pair]:
    return edge.target is None, edge.target or 0, edge.source, edge.feature_shift, edge.pool


def _banks(
    draft: Draft, edges: Sequence[Edge], forms: Sequence[Form], input_shape: Shape3, *, must_agree: bool = True
) -> tuple[Shape3, list[Edge]] | None:
    """Return what arrives by the edges, and the edges with the shifts that the new numbers of features ask for."""
    borders, size, moved = {0: 0}, (1, 1), []
    sizes = set()
    for edge in sorted(edges, key=lambda edge: edge.feature_shift):
        old = draft.source_shape(edge)[0]
        new, *size_now = pooled(input_shape if edge.source == INPUT else forms[edge.source].out_shape, edge.pool)
        size = size_now[0], size_now[1]
        if min(size) < 1:
            return None  # the pool is larger than the map
        sizes.add(size)
        if edge.feature_shift not in borders:
            return None
        shift = borders[edge.feature_shift]
        if borders.setdefault(edge.feature_shift + old, shift + new) != shift + new:
            return None  # what is added must keep as many features
        moved.append(dataclasses.replace(edge, feature_shift=shift))
    if must_agree and len(sizes) != 1:
        return None
    return (max(borders.values()), *size), moved


def _reshaped(form: Form, window: Window, in_shape: Shape3, out_shape: Shape3) -> Form:
    if (window, in_shape, out_shape) == (form.window, form.in_shape, form.out_shape):
        return form
    groups = form.groups if in_shape[0] % form.groups == 0 and out_shape[0] % form.groups == 0 else 1
    shape = out_shape[0], in_shape[0] // groups, *window.kernel

    def values() -> Values:
        if form.is_relay:
            return values_of(repeater(form.name, in_shape, window.kernel))
        given = form.values()
        bias = None if given.bias is None else np.resize(given.bias, out_shape[0])
        v_init = given.v_init if out_shape == form.out_shape else None
        weight = given.weight if given.weight.shape == shape else np.resize(given.weight, shape)
        return dataclasses.replace(given, weight=weight, bias=bias, v_init=v_init)

    return dataclasses.replace(
        form, window=window, in_shape=in_shape, out_shape=out_shape, groups=groups, values=lazy(values)
    )


def _form(layer: SpikingLayer, chip: Chip) -> Form:
    values = values_of(layer)
    return Form(
        name=layer.name,
        window=layer.window,
        in_shape=layer.in_shape,
        out_shape=layer.out_shape,
        groups=layer.groups,
        has_bias=layer.bias is not None,
        chip=chip,
        values=lambda: values,
        is_linear=_covers(layer.window, layer.in_shape),
    )


def _covers(window: Window, in_shape: Shape3) -> bool:
    is_plain = window.padding == (0, 0) and window.dilation == (1, 1) and window.upsample == (1, 1)
    return is_plain and window.kernel == in_shape[1:]


def _zeros(shape: tuple[int, ...], kind: type[np.signedinteger[Any]]) -> NDArray[Any]:
    zeros = np.zeros(shape, kind)
    zeros.flags.writeable = False  # so that the record keeps it without touching its pages
    return zeros


def scaled_pool(pool: Pair, factor: int) -> Pair:
    """Return a pool ``factor`` times as large."""
    return pool[0] * factor, pool[1] * factor
