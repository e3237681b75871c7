"""Pieces of SIMD code for compiled loops, where the compiler alone does not find them.

A vector of numbers is written in LLVM's own terms (``<32 x i16>``), which LLVM turns into what the processor has: one
AVX-512 instruction, two of AVX2, four of NEON. It comes with numba: no compiler at the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba.core.cgutils
import numba.extending
from llvmlite import ir
from numba import types

intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.extending.intrinsic
"""What makes a function that writes LLVM code callable in compiled code, where it takes one argument less."""

_cgutils: Any = numba.core.cgutils

INT32, INT64 = ir.IntType(32), ir.IntType(64)


def pointer_to(setting: tuple[Any, Any], array: tuple[Any, Any], index: Any, vector: ir.VectorType) -> Any:
    """Return the pointer to ``vector`` numbers of a 1-D array from ``index`` on, which must lie in it.

    ``setting`` is numba's context and the builder of the code, ``array`` the numba type and the value of the array.
    """
    context, builder = setting
    kind, value = array
    data = context.make_array(kind)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def splat(builder: Any, number: Any, vector: ir.VectorType) -> Any:
    """Return a vector that holds ``number`` in every lane."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(INT32, 0))
    everywhere = ir.Constant(ir.VectorType(INT32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, nothing, everywhere)


def call(builder: Any, name: str, arguments: Sequence[Any], result: ir.Type) -> Any:
    """Return the result of one of LLVM's own functions, such as ``llvm.sadd.sat.v32i16``."""
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(_cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def mask_of(builder: Any, hit: Any) -> Any:
    """Return a vector of yes and no as the lowest bits of a 64-bit number, lane 0 lowest."""
    bits = builder.bitcast(hit, ir.IntType(hit.type.count))
    return bits if hit.type.count == 64 else builder.zext(bits, INT64)


@intrinsic
def lowest_bit(_typing: Any, _mask: Any) -> Any:
    """Return the place of the lowest 1 of a 64-bit number that is not 0."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        is_never_zero = ir.Constant(ir.IntType(1), 1)
        return call(builder, "llvm.cttz.i64", [arguments[0], is_never_zero], INT64)

    return types.uint64(types.uint64), generate
