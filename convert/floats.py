"""Float32 states in the vectors of a processor: what the compiled loops of the event engine do with a run of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba.core.cgutils
from llvmlite import ir
from numba import types

from spikeport.models.lanes import INT64, call, intrinsic, mask_of, pointer_to, splat

from .layout import BLOCK, LANES

_cgutils: Any = numba.core.cgutils

_FLOAT = 4  # bytes
_RUN, _FULL = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.FloatType(), BLOCK)


def _gather(lanes: int) -> Callable[..., None]:
    """Return a function, for compiled code, that adds weighted sums of runs to ``lanes`` states.

    It takes state, first place, weights, first place; how far behind that each run lies, its factor, and the number of
    runs. The states stay in registers meanwhile.
    """
    parts = range(0, lanes, LANES)

    @intrinsic
    def gather(_typing: Any, state: Any, _i: Any, weight: Any, _j: Any, runs: Any, factors: Any, _n: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            states, i, weights, j, behind, amounts, n = arguments
            setting, kinds = (context, builder), signature.args
            first_run = context.make_array(kinds[4])(context, builder, behind).data
            first_factor = context.make_array(kinds[5])(context, builder, amounts).data

            def part_of(array: tuple[Any, Any], first: Any, part: int) -> Any:
                return pointer_to(setting, array, builder.add(first, ir.Constant(INT64, part)), _RUN)

            places = [part_of((kinds[0], states), i, part) for part in parts]
            totals = [_cgutils.alloca_once_value(builder, builder.load(place, align=_FLOAT)) for place in places]
            with _cgutils.for_range(builder, n, intp=INT64) as loop:
                run = builder.add(j, builder.load(builder.gep(first_run, [loop.index])))
                factor = splat(builder, builder.load(builder.gep(first_factor, [loop.index])), _RUN)
                for part, total in zip(parts, totals, strict=True):
                    row = builder.load(part_of((kinds[2], weights), run, part), align=_FLOAT)
                    builder.store(builder.fadd(builder.load(total), builder.fmul(row, factor)), total)
            for place, total in zip(places, totals, strict=True):
                builder.store(builder.load(total), place, align=_FLOAT)
            return context.get_dummy_value()

        return types.void(state, types.uint64, weight, types.uint64, runs, factors, types.uint64), generate

    return gather


gather_16, gather_32, gather_48 = _gather(16), _gather(32), _gather(48)
gather_64, gather_96, gather_128 = _gather(64), _gather(96), _gather(128)


@intrinsic
def nonzero(_typing: Any, amounts: Any, _i: Any) -> Any:
    """Return which of the 16 amounts from ``i`` on are not zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = pointer_to((context, builder), (signature.args[0], arguments[0]), arguments[1], _RUN)
        found = builder.load(place, align=_FLOAT)
        return mask_of(
            builder, builder.fcmp_unordered("!=", found, splat(builder, ir.Constant(ir.FloatType(), 0.0), _RUN))
        )

    return types.uint64(amounts, types.uint64), generate


@intrinsic
def settle(_typing: Any, state: Any, _i: Any, _threshold: Any, _low: Any) -> Any:
    """Raise the 64 states from ``i`` on to ``low``, and return which of them reach the threshold."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        into, i, threshold, low = arguments
        target = pointer_to((context, builder), (signature.args[0], into), i, _FULL)
        v = builder.load(target, align=_FLOAT)
        bounded = call(builder, f"llvm.maxnum.v{BLOCK}f32", [v, splat(builder, low, _FULL)], _FULL)
        builder.store(bounded, target, align=_FLOAT)
        return mask_of(builder, builder.fcmp_ordered(">=", v, splat(builder, threshold, _FULL)))

    return types.uint64(state, types.uint64, types.float32, types.float32), generate


@intrinsic
def visit_run(_typing: Any, state: Any, _i: Any, weight: Any, _j: Any, _n: Any, _threshold: Any, _low: Any) -> Any:
    """Add the 16 weights from ``j`` on to the states from ``i`` on, of which the first ``n`` are visited.

    Each of those is raised to ``low``, and emits one spike where it reaches the threshold; returned is which did.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        into, i, source, j, n, threshold, low = arguments
        target = pointer_to((context, builder), (signature.args[0], into), i, _RUN)
        weights = pointer_to((context, builder), (signature.args[2], source), j, _RUN)
        lanes = ir.VectorType(INT64, LANES)
        is_visited = builder.icmp_signed("<", ir.Constant(lanes, list(range(LANES))), splat(builder, n, lanes))
        high, floor = splat(builder, threshold, _RUN), splat(builder, low, _RUN)
        old = builder.load(target, align=_FLOAT)
        v = builder.fadd(old, builder.load(weights, align=_FLOAT))
        v = builder.select(builder.fcmp_ordered("<", v, floor), floor, v)
        fires = builder.and_(builder.fcmp_ordered(">=", v, high), is_visited)
        v = builder.select(fires, builder.fsub(v, high), v)
        builder.store(builder.select(is_visited, v, old), target, align=_FLOAT)
        return mask_of(builder, fires)

    arguments = (state, types.uint64, weight, types.uint64, types.int64, types.float32, types.float32)
    return types.uint64(*arguments), generate
