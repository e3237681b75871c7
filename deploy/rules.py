"""What a chip can be configured to: the rules that a layer, a route and a program have to keep."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

from spikeport.convert.geometry import Pair
from spikeport.convert.types import INPUT, SpikingNet

from .budget import Layer, count_words, fits
from .chips import Chip, Limits, Numbers
from .types import CoreProgram, IntegerLayer, Program, Violation


def report(layer: str | None, rule: str, *, found: str, limit: str, fix: str, why: str = "") -> Violation:
    """Return a violation (or warning) whose message says what, where, expected, found, why, and one thing to try."""
    where = "net" if layer is None else f"layer '{layer}'"
    reason = f" {why}." if why else ""
    return Violation(layer, rule, found, limit, f"{where}: {rule}: expected {limit}, found {found}.{reason} Try {fix}.")


def either(values: Iterable[int]) -> str:
    """Return the values as text: ``1, 2 or 4``."""
    *first, last = map(str, values)
    return f"{', '.join(first)} or {last}" if first else last


def check_shape(layer: IntegerLayer | CoreProgram, limits: Limits) -> list[Violation]:
    """Return what a core cannot do about kernel, stride, padding, upsampling, map and feature counts of a layer."""
    in_features, (features, height, width) = layer.in_shape[0], layer.out_shape
    window, (ky, kx) = layer.window, count_words(layer).kernel
    is_dilated = window.dilation != (1, 1)
    size = f"{ky}x{kx}"
    if is_dilated:
        size += f" ({_pair(window.kernel)} with a dilation of {_pair(window.dilation)})"
    edge, far = limits.kernel_edge, limits.out_edge
    found = []

    def add(rule: str, value: object, limit: str, fix: str) -> None:
        found.append(report(layer.name, rule, found=str(value), limit=limit, fix=fix))

    if ky != kx:
        square = min(max(ky, kx), edge)
        fix = f"a kernel of {square}x{square}" + (" without dilation" if is_dilated else "")
        add("kernel", size, "a square kernel", fix)
    if max(ky, kx) > edge:
        fix = f"a kernel of at most {edge}x{edge}; a Linear layer's kernel is its input map, so pool more before it"
        if is_dilated and max(window.kernel) <= edge:
            fix = f"a dilation of at most {(edge - 1) // (max(window.kernel) - 1)}"
        add("kernel size", size, f"at most {edge}x{edge}", fix)
    if not set(layer.stride) <= set(limits.strides):
        nearest = "x".join(str(min(limits.strides, key=lambda stride: abs(stride - step))) for step in layer.stride)
        add("stride", _pair(layer.stride), f"{either(limits.strides)} in each direction", f"a stride of {nearest}")
    if max(layer.padding) > limits.padding:
        add("padding", _pair(layer.padding), f"at most {limits.padding}", f"a padding of {limits.padding} or less")
    if window.upsample != (1, 1):
        fix = "a Conv2d in place of the ConvTranspose2d; the simulation runs both"
        add("upsample", _pair(window.upsample), "1x1, because the chip cannot upsample", fix)
    if max(height, width) > far:
        add("output map", f"{height}x{width}", f"at most {far}x{far}", _smaller_map(layer, limits))
    if features > limits.features:
        add("output channels", features, f"at most {limits.features}", f"{limits.features} channels or fewer")
    if in_features > limits.features:
        add("input channels", in_features, f"at most {limits.features}", "fewer channels, or a larger pool, before it")
    return found


def check_thresholds(layer: IntegerLayer, numbers: Numbers) -> list[Violation]:
    """Return what a core cannot do about the upper threshold of a layer; the lower one always ends in its range."""
    low, high = numbers.threshold_high
    if low <= layer.threshold_high <= high:
        return []
    # One scale for all: a threshold of 1 / scale becomes 1, and the scale stays as long as the threshold is that small.
    fix = f"a threshold of at least {1 / layer.scale:.4g}, or smaller weights, bias and v_min for the same threshold"
    if layer.threshold_high > high:
        fix = "a lower threshold and weights divided by the same number"
    return [
        report(layer.name, "threshold", found=str(layer.threshold_high), limit=f"{low}..{high} as integer", fix=fix)
    ]


def check_routes(net: SpikingNet, limits: Limits) -> list[Violation]:
    """Return what a chip cannot do about the edges of a net."""
    found = _check_input(net, limits)
    for index, layer in enumerate(net.layers):
        if all(edge.source != INPUT for edge in net.incoming(index)):
            found += _check_in_map(layer, limits)
    for edge in net.edges:
        if edge.source != INPUT:
            found += check_pool(net.layers[edge.source].name, edge.pool, limits)
    for index, layer in enumerate(net.layers):
        found += check_fan_out(layer.name, sum(edge.target is not None for edge in net.outgoing(index)), limits)
    return found


def check_pool(layer: str | None, pool: Pair, limits: Limits) -> list[Violation]:
    """Return what cannot be done about the pool of a route that leaves a layer, or the input (None)."""
    pools = limits.input_pools if layer is None else limits.pools
    smaller = max(size for size in pools if size <= max(pool))
    fix = f"a pool of {smaller}x{smaller}"
    if not set(pool) <= set(pools):
        rule = "input pool" if layer is None else "pool"
        return [report(layer, rule, found=_pair(pool), limit=either(pools), fix=fix)]
    if layer is not None and pool[0] != pool[1]:
        return [report(layer, "pool", found=_pair(pool), limit="a square pool", fix=fix)]
    return []


def check_fan_out(layer: str, n_destinations: int, limits: Limits) -> list[Violation]:
    """Return what a core cannot do about the number of layers that a layer feeds."""
    if n_destinations <= limits.destinations:
        return []
    fix = f"dropping {n_destinations - limits.destinations} of them, or a layer with a 1x1 kernel that passes it on"
    limit = f"at most {limits.destinations} layers fed by it"
    return [report(layer, "destinations", found=str(n_destinations), limit=limit, fix=fix)]


def check_program(program: Program, chip: Chip) -> list[Violation]:
    """Return all rules of ``chip`` that a program breaks; a program that was compiled for it breaks none."""
    limits, ids = chip.limits, {core.core for core in chip.cores}
    dvs, found = program.dvs, check_pool(None, program.dvs.pool, chip.limits)
    if max(dvs.input_shape[1:]) > limits.in_edge:
        found.append(_input_map(dvs.input_shape[1:], limits))
    if len(program.entry) > limits.entries or len(set(program.entry)) < len(program.entry):
        found.append(_entries(len(program.entry), limits))
    for core in program.cores:
        if core.core not in ids:
            limit = f"a core of {chip.name}, {min(ids)}..{max(ids)}"
            found.append(report(core.name, "core", found=str(core.core), limit=limit, fix="compiling it again"))
            continue
        found += check_shape(core, limits) + _check_in_map(core, limits)
        found += check_fan_out(core.name, sum(target.core is not None for target in core.destinations), limits)
        for pool in sorted({target.pool for target in core.destinations}):
            found += check_pool(core.name, (pool, pool), limits)
        far = [one.feature_shift for one in core.destinations if one.core is not None]
        if max(far, default=0) >= limits.features:
            limit = f"at most {limits.features - 1}"
            found.append(report(core.name, "shift", found=str(max(far)), limit=limit, fix="compiling it again"))
        budget = count_words(core)
        if not fits(budget, chip.core(core.core)):
            words = f"{budget.kernel_words} kernel and {budget.neuron_words} neuron words"
            limit = f"what core {core.core} of {chip.name} holds"
            found.append(report(core.name, "memory", found=words, limit=limit, fix="compiling it again"))
    return found


def _check_input(net: SpikingNet, limits: Limits) -> list[Violation]:
    edges = [edge for edge in net.edges if edge.source == INPUT]
    found = []
    if max(net.input_shape[1:]) > limits.in_edge:
        found.append(_input_map(net.input_shape[1:], limits))
    for pool in dict.fromkeys(edge.pool for edge in edges):
        found += check_pool(None, pool, limits)
    fed = Counter(edge.target for edge in edges if edge.target is not None)
    if len(fed) > limits.entries:
        found.append(_entries(len(fed), limits))
    for target in (target for target, n_edges in fed.items() if n_edges > 1):
        name, fix = net.layers[target].name, "one edge, with the weights of both added up"
        limit = "one edge from the input to a layer"
        found.append(report(None, "entry", found=f"{fed[target]} to '{name}'", limit=limit, fix=fix))
    if len({edge.pool for edge in edges}) > 1:
        pools = " and ".join(_pair(pool) for pool in dict.fromkeys(edge.pool for edge in edges))
        fix = "one pool for all of them, and a stride in the layer that needs a smaller map"
        found.append(report(None, "input pools", found=pools, limit="the same for all layers that it feeds", fix=fix))
    if any(edge.feature_shift for edge in edges):
        shift = str(max(edge.feature_shift for edge in edges))
        fix = "weights with the input's channels first"
        found.append(report(None, "feature shift", found=shift, limit="0 on the way from the input", fix=fix))
    if any(edge.target is None for edge in edges):
        fix = "a layer with a 1x1 kernel between input and output"
        found.append(report(None, "output", found="an edge from the input to the output", limit="layers only", fix=fix))
    return found


def _check_in_map(layer: Layer, limits: Limits) -> list[Violation]:
    _, height, width = layer.in_shape
    if max(height, width) <= limits.in_edge:
        return []
    limit, fix = f"at most {limits.in_edge}x{limits.in_edge}", "pooling, or a larger stride, before it"
    return [report(layer.name, "input map", found=f"{height}x{width}", limit=limit, fix=fix)]


def _input_map(size: tuple[int, int], limits: Limits) -> Violation:
    limit, fix = f"at most {limits.in_edge}x{limits.in_edge}", "recordings that are cropped or scaled down before"
    return report(None, "input map", found=_pair(size), limit=limit, fix=fix)


def _entries(n_entries: int, limits: Limits) -> Violation:
    limit, fix = f"at most {limits.entries} distinct layers fed by it", "one first layer that feeds the others"
    return report(None, "entry", found=str(n_entries), limit=limit, fix=fix)


def _smaller_map(layer: IntegerLayer | CoreProgram, limits: Limits) -> str:
    for stride in limits.strides:
        height, width = dataclasses.replace(layer.window, stride=(stride, stride)).out_size(layer.in_shape[1:])
        if min(height, width) >= 1 and max(height, width) <= limits.out_edge:
            return f"a stride of {stride}, which makes it {height}x{width}"
    return "pooling before it"


def _pair(pair: Pair) -> str:
    return f"{pair[0]}x{pair[1]}"
