"""Whether a Speck can be configured so: the driver's ``validate_configuration``, and what only this board cannot do.

Rules of shapes, kernels, strides and memory are those of ``chips.py`` and ``rules.py``, the sources beside each number.
"""

from __future__ import annotations

from collections.abc import Iterator

from spikeport.deploy.budget import Budget, available, too_small
from spikeport.deploy.chips import CHIPS, Chip

from .configuration import N_CORES, READOUT_LAYER, CnnLayerConfig, SpeckConfiguration

_MAX_SHIFT = 1023  # SAM: within one feature less than the least and the largest number of features, which is 1024


def validate_configuration(configuration: SpeckConfiguration) -> tuple[bool, str]:
    """Return whether the chip takes the configuration, and all reasons why not, each naming its layer."""
    problems = [*_violations(configuration)]
    return not problems, "\n".join(problems)


def find_unsupported(configuration: SpeckConfiguration) -> list[str]:
    """Return what a real chip can be configured to, but the virtual board cannot do."""
    found = []
    for index, layer in enumerate(configuration.cnn_layers):
        if is_used(layer) and layer.output_decimator_enable:
            found.append(
                f"cnn_layers[{index}]: output_decimator_enable: the virtual board has no decimator, and where the real "
                "one sits relative to the monitor is not published. Try False."
            )
        for number, one in enumerate(layer.destinations):
            if one.enable and one.feature_shift < 0:
                found.append(
                    f"cnn_layers[{index}]: destinations[{number}].feature_shift: expected 0 or more on the virtual "
                    f"board, found {one.feature_shift}. Try weights in the order of the features."
                )
    loop = find_loop(configuration)
    if loop:
        way = " -> ".join(f"cnn_layers[{core}]" for core in (*loop, loop[0]))
        found.append(f"{way}: a loop of cores, which the virtual board cannot run. Try a net without recurrence.")
    return found


def is_used(layer: CnnLayerConfig) -> bool:
    """Return whether a core has weights."""
    return shape_of(layer, "weights")[0] > 0


def order_cores(configuration: SpeckConfiguration) -> tuple[int, ...]:
    """Return the used cores, each behind those that feed it; cores of a loop are left out.

    Of those that may come next, the one with the lowest id comes first.
    """
    targets = {
        index: {one.layer for one in layer.destinations if one.enable}
        for index, layer in enumerate(configuration.cnn_layers)
        if is_used(layer)
    }
    order: list[int] = []
    while free := sorted(
        core
        for core in targets.keys() - set(order)
        if not any(core in fed for source, fed in targets.items() if source not in order)
    ):
        order.append(free[0])
    return tuple(order)


def find_loop(configuration: SpeckConfiguration) -> list[int]:
    """Return cores that feed each other around, in the order of their feeding; none where there is no loop."""
    ordered = set(order_cores(configuration))
    used = {index for index, layer in enumerate(configuration.cnn_layers) if is_used(layer)}
    left = used - ordered
    for start in sorted(left):
        way = [start]
        while True:
            fed = [one.layer for one in configuration.cnn_layers[way[-1]].destinations if one.enable]
            onward = sorted(set(fed) & left)
            if not onward:
                break
            if onward[0] in way:
                return way[way.index(onward[0]) :]
            way.append(onward[0])
    return []


def _violations(configuration: SpeckConfiguration) -> Iterator[str]:
    chip = next(one for one in CHIPS if one.driver == configuration.driver)
    for index, layer in enumerate(configuration.cnn_layers):
        name = f"cnn_layers[{index}]"
        for problem in _of_layer(layer, chip):
            yield f"{name}: {problem}"
        if is_used(layer):
            yield from (f"{name}: {problem}" for problem in _of_memory(layer, name, chip, index))
    yield from _of_routes(configuration)
    yield from _of_input_stage(configuration, chip)
    yield from _of_readout(configuration)


def _of_layer(layer: CnnLayerConfig, chip: Chip) -> Iterator[str]:
    """Yield what is wrong with the values and shapes of a core."""
    limits, dimensions = chip.limits, layer.dimensions
    into, out = dimensions.input_shape, dimensions.output_shape
    kernel = dimensions.kernel_size
    yield from _outside("dimensions.kernel_size", kernel, range(1, limits.kernel_edge + 1))
    for axis in ("x", "y"):
        stride, pad = getattr(dimensions.stride, axis), getattr(dimensions.padding, axis)
        size, out_size = getattr(into.size, axis), getattr(out.size, axis)
        yield from _outside(f"dimensions.stride.{axis}", stride, limits.strides)
        yield from _outside(f"dimensions.padding.{axis}", pad, range(limits.padding + 1))
        yield from _outside(f"dimensions.input_shape.size.{axis}", size, range(1, limits.in_edge + 1))
        yield from _outside(f"dimensions.output_shape.size.{axis}", out_size, range(1, limits.out_edge + 1))
        if stride > 0 and out_size != (expected := (size + 2 * pad - kernel) // stride + 1):
            yield (
                f"dimensions.output_shape.size.{axis}: expected {expected}, from an input of {size}, kernel {kernel}, "
                f"stride {stride}, padding {pad}, found {out_size}. Try {expected}."
            )
    for side, shape in (("input", into), ("output", out)):
        yield from _outside(
            f"dimensions.{side}_shape.feature_count", shape.feature_count, range(1, limits.features + 1)
        )
    low, high = chip.numbers.threshold_low
    yield from _outside("threshold_low", layer.threshold_low, range(low, high + 1))
    yield from _outside("output_decimator_interval", layer.output_decimator_interval, range(8))
    if not is_used(layer):
        if layer.threshold_high < 0:
            yield from _outside("threshold_high", layer.threshold_high, range(32768))
        return
    low, high = chip.numbers.threshold_high
    yield from _outside("threshold_high", layer.threshold_high, range(low, high + 1))
    yield from _shapes(layer)


def _shapes(layer: CnnLayerConfig) -> Iterator[str]:
    dimensions = layer.dimensions
    for name, expected in (
        ("weights", dimensions.get_weights_array_dimensions()),
        ("biases", dimensions.get_biases_array_dimensions()),
        ("neurons_initial_value", dimensions.get_neuron_states_array_dimensions()),
    ):
        found = list(shape_of(layer, name))
        if name == "biases" and found == [0] and not layer.leak_enable:
            continue
        if name == "neurons_initial_value" and not min(found):
            continue
        if found != expected:
            yield f"{name}: expected the shape {expected} of the dimensions, found {found}. Try assigning both."


def shape_of(layer: CnnLayerConfig, name: str) -> tuple[int, ...]:
    """Return the shape of an array of a core, without copying it."""
    shape: tuple[int, ...] = layer._values[layer._fields[name].place].shape
    return shape


def _of_memory(layer: CnnLayerConfig, name: str, chip: Chip, index: int) -> Iterator[str]:
    dimensions = layer.dimensions
    out = dimensions.output_shape
    if min(dimensions.kernel_size, out.size.x, out.size.y, out.feature_count) < 1:
        return  # said already
    budget = Budget(
        layer=name,
        in_features=dimensions.input_shape.feature_count,
        features=out.feature_count,
        kernel=(dimensions.kernel_size, dimensions.kernel_size),
        out_map=(out.size.y, out.size.x),
        has_bias=layer.leak_enable,
    )
    core = chip.core(index)
    for memory in too_small(budget, core):
        use = budget.words(memory)
        yield (
            f"{memory} memory: expected at most {available(core, memory)} words, what core {index} has, found "
            f"{use.formula}. Try another core or a smaller layer."
        )


def _of_routes(configuration: SpeckConfiguration) -> Iterator[str]:
    layers = configuration.cnn_layers
    allowed = (*range(N_CORES), READOUT_LAYER)
    pools = next(one for one in CHIPS if one.driver == configuration.driver).limits.pools
    for index, layer in enumerate(layers):
        for number, one in enumerate(layer.destinations):
            where = f"cnn_layers[{index}]: destinations[{number}]"
            yield from (f"{where}.{problem}" for problem in _outside("pooling", one.pooling, pools))
            if not one.enable:
                continue
            shifts = range(-_MAX_SHIFT, _MAX_SHIFT + 1)
            yield from (f"{where}.{problem}" for problem in _outside("feature_shift", one.feature_shift, shifts))
            yield from (f"{where}.{problem}" for problem in _outside("layer", one.layer, allowed))
            if one.layer == index:
                yield f"{where}.layer: a core cannot feed itself. Try another one."
            elif is_used(layer) and one.layer < N_CORES and not is_used(layers[one.layer]):
                yield f"{where}.layer: cnn_layers[{one.layer}] has no weights. Try giving it some."
            elif is_used(layer) and one.layer < N_CORES and one.pooling in pools:
                yield from _of_size(layer, layers[one.layer], where, one.pooling)


def _of_size(source: CnnLayerConfig, target: CnnLayerConfig, where: str, pool: int) -> Iterator[str]:
    """Yield where a map is larger than its target takes; rows and columns that fill no window may be left over."""
    for axis in ("x", "y"):
        size = getattr(source.dimensions.output_shape.size, axis)
        expected = getattr(target.dimensions.input_shape.size, axis)
        if expected not in (size // pool, -(-size // pool)):
            yield (
                f"{where}: expected a map of {expected} along {axis}, what its target takes, found {size} pooled by "
                f"{pool}. Try the same on both sides."
            )


def _of_input_stage(configuration: SpeckConfiguration, chip: Chip) -> Iterator[str]:
    stage = configuration.dvs_layer
    for axis in ("x", "y"):
        pool, first, last = (getattr(getattr(stage, part), axis) for part in ("pooling", "origin", "cut"))
        edge = chip.limits.in_edge
        yield from (f"dvs_layer.{found}" for found in _outside(f"pooling.{axis}", pool, chip.limits.input_pools))
        yield from (f"dvs_layer.{found}" for found in _outside(f"origin.{axis}", first, range(edge)))
        yield from (f"dvs_layer.{found}" for found in _outside(f"cut.{axis}", last, range(edge)))
        if last < first:
            yield f"dvs_layer: cut.{axis}: expected {first} or more, the origin, found {last}. Try {first}."
    for number, one in enumerate(stage.destinations):
        if not one.enable:
            continue
        name = f"dvs_layer: destinations[{number}].layer"
        yield from _outside(name, one.layer, (*range(N_CORES), READOUT_LAYER))
        if one.layer < N_CORES and not is_used(configuration.cnn_layers[one.layer]):
            yield f"{name}: cnn_layers[{one.layer}] has no weights. Try giving it some."
    noise = configuration.dvs_filter
    if noise.enable and noise.hot_pixel_filter_enable and noise.low_pass_mode_enable:
        yield "dvs_filter: hot_pixel_filter_enable and low_pass_mode_enable exclude each other. Try one of them."
    divider = configuration.factory_config.internal_slow_clk_divider
    yield from _outside("factory_config.internal_slow_clk_divider", divider, range(14, 18))


def _of_readout(configuration: SpeckConfiguration) -> Iterator[str]:
    readout = configuration.readout
    yield from _outside("readout.output_mode_sel", readout.output_mode_sel, range(4))
    yield from _outside("readout.readout_configuration_sel", readout.readout_configuration_sel, range(4))
    yield from _outside("readout.output_neuron_num", readout.output_neuron_num, range(16))


def _outside(name: str, value: int, allowed: range | tuple[int, ...]) -> Iterator[str]:
    """Yield the sentence for a value that is not allowed."""
    if value in allowed:
        return
    near = min(allowed, key=lambda one: abs(one - value))
    span = f"{allowed[0]}..{allowed[-1]}" if isinstance(allowed, range) else ", ".join(map(str, allowed))
    yield f"{name}: expected one of {span}, found {value}. Try {near}."
