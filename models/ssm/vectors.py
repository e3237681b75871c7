"""Vector code of the online engine: products of rows with packed matrices, and loops over runs of numbers.

A run is a part of a flat float32 array, of a multiple of 16 numbers. Imported only where compiled loops are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numba.core.cgutils
from llvmlite import ir
from numba import types

from spikeport.models.lanes import INT32, INT64, call, intrinsic, pointer_to, splat

LANES = 16
PANEL = 2 * LANES
"""Columns of a packed matrix that lie together: ``[panel][row][32]``."""

_cgutils: Any = numba.core.cgutils
_FLOAT = ir.FloatType()
_RUN = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(INT32, LANES)
_ALIGN = 4

Vectors = Sequence[Any]


def _vector_code(generator: Callable[..., Any], n_arguments: int) -> Callable[..., Any]:
    """Return what is callable in compiled code with so many arguments: numba reads their number off the signature."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ["_typing", *(f"a{index}" for index in range(n_arguments))]
    generator.__dict__["__signature__"] = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    return intrinsic(generator)


def _constant(value: float) -> Any:
    return ir.Constant(_RUN, [ir.Constant(_FLOAT, value)] * LANES)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return call(builder, f"llvm.fma.v{LANES}f32", [a, b, c], _RUN)


def _tile(n_rows: int) -> Callable[..., None]:
    """Return a function, for compiled code, that writes 32 columns of ``n_rows`` rows of ``rows @ matrix + bias``.

    It takes rows, first place, distance; a panel of the matrix, first place, its number of rows; bias, first place;
    output, first place, distance. Each sum goes over the matrix's rows in their order, with one rounding for each: a
    row's result does not depend on the tile that it is in.
    """

    def tile(_typing: Any, *kinds: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            x, xi, x_step, w, wi, depth, bias, bi, out, oi, out_step = arguments
            setting, own = (context, builder), signature.args

            def place(kind: Any, array: Any, first: Any, part: int) -> Any:
                shift = builder.add(first, ir.Constant(INT64, part * LANES))
                return pointer_to(setting, (kind, array), shift, _RUN)

            start = [builder.load(place(own[6], bias, bi, part), align=_ALIGN) for part in range(2)]
            sums = [[_cgutils.alloca_once_value(builder, one) for one in start] for _ in range(n_rows)]
            for row in sums:  # alloca_once_value stores where the function begins: here is the place inside of loops
                for one, total in zip(start, row, strict=True):
                    builder.store(one, total)
            first = context.make_array(own[0])(context, builder, x).data
            lines = [builder.add(xi, builder.mul(x_step, ir.Constant(INT64, row))) for row in range(n_rows)]
            with _cgutils.for_range(builder, depth, intp=INT64) as loop:
                at = builder.add(wi, builder.mul(loop.index, ir.Constant(INT64, PANEL)))
                weights = [builder.load(place(own[3], w, at, part), align=_ALIGN) for part in range(2)]
                for line, row in zip(lines, sums, strict=True):
                    value = splat(builder, builder.load(builder.gep(first, [builder.add(line, loop.index)])), _RUN)
                    for weight, total in zip(weights, row, strict=True):
                        builder.store(_fma(builder, value, weight, builder.load(total)), total)
            for index, row in enumerate(sums):
                line = builder.add(oi, builder.mul(out_step, ir.Constant(INT64, index)))
                for part, total in enumerate(row):
                    builder.store(builder.load(total), place(own[8], out, line, part), align=_ALIGN)
            return context.get_dummy_value()

        x, _, _, w, _, _, bias, _, out, _, _ = kinds
        n = types.int64
        return types.void(x, n, n, w, n, n, bias, n, out, n, n), generate

    return _vector_code(tile, 11)


tile_8, tile_4, tile_2, tile_1 = _tile(8), _tile(4), _tile(2), _tile(1)


def _over(
    n_scalars: int, reads: Sequence[int], body: Callable[[Any, Vectors, Vectors], Vectors]
) -> Callable[..., None]:
    """Return a function, for compiled code, that goes over runs 16 numbers at a time.

    It takes the output and its first place; each further array, with as many first places as ``reads`` says; the
    scalars; the length. ``body`` gets vectors from all places, those of the output first, and returns what is written
    there: the first of ``reads`` is the number of places of the output.
    """

    def run(_typing: Any, *kinds: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            setting, own = (context, builder), signature.args
            places, at = [], 0
            for n_places in reads:
                places += [(own[at], arguments[at], arguments[at + 1 + index]) for index in range(n_places)]
                at += 1 + n_places
            scalars = [splat(builder, arguments[at + index], _RUN) for index in range(n_scalars)]
            steps = builder.lshr(arguments[-1], ir.Constant(INT64, 4))
            with _cgutils.for_range(builder, steps, intp=INT64) as loop:
                shift = builder.shl(loop.index, ir.Constant(INT64, 4))
                pointers = [
                    pointer_to(setting, (kind, array), builder.add(first, shift), _RUN) for kind, array, first in places
                ]
                vectors = [builder.load(pointer, align=_ALIGN) for pointer in pointers]
                for pointer, result in zip(pointers, body(builder, vectors, scalars), strict=False):
                    builder.store(result, pointer, align=_ALIGN)
            return context.get_dummy_value()

        expected: list[Any] = []
        at = 0
        for n_places in reads:
            expected += [kinds[at], *[types.int64] * n_places]
            at += 1 + n_places
        return types.void(*expected, *[types.float32] * n_scalars, types.int64), generate

    return _vector_code(run, len(reads) + sum(reads) + n_scalars + 1)


def _total(is_square: bool) -> Callable[..., float]:
    """Return a function, for compiled code, that sums a run less a number, each value or each square of one.

    It takes the array, first place, what is taken off, and the length.
    """

    def total(_typing: Any, *kinds: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, first, shift, n = arguments
            so_far = _cgutils.alloca_once_value(builder, _constant(0.0))
            builder.store(_constant(0.0), so_far)
            less = splat(builder, shift, _RUN)
            with _cgutils.for_range(builder, builder.lshr(n, ir.Constant(INT64, 4)), intp=INT64) as loop:
                at = builder.add(first, builder.shl(loop.index, ir.Constant(INT64, 4)))
                pointer = pointer_to((context, builder), (signature.args[0], array), at, _RUN)
                value = builder.fsub(builder.load(pointer, align=_ALIGN), less)
                other = value if is_square else _constant(1.0)
                builder.store(_fma(builder, value, other, builder.load(so_far)), so_far)
            found = builder.load(so_far)
            lanes = [builder.extract_element(found, ir.Constant(INT32, lane)) for lane in range(LANES)]
            while len(lanes) > 1:
                lanes = [builder.fadd(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
            return lanes[0]

        return types.float32(kinds[0], types.int64, types.float32, types.int64), generate

    return _vector_code(total, 4)


total, total_square = _total(is_square=False), _total(is_square=True)


def _decayed(builder: Any, vectors: Vectors, _scalars: Vectors) -> Vectors:
    """Return h + a h + b of complex h, a and b."""
    h_re, h_im, a_re, a_im, b_re, b_im = vectors
    re = _fma(builder, a_re, h_re, _fma(builder, builder.fneg(a_im), h_im, b_re))
    im = _fma(builder, a_re, h_im, _fma(builder, a_im, h_re, b_im))
    return builder.fadd(h_re, re), builder.fadd(h_im, im)


def _compounded(builder: Any, vectors: Vectors, _scalars: Vectors) -> Vectors:
    """Return a + b + a b of complex numbers: (1 + a)(1 + b) - 1, exact where both are small."""
    a_re, a_im, b_re, b_im = vectors
    re = _fma(builder, a_re, b_re, _fma(builder, builder.fneg(a_im), b_im, b_re))
    im = _fma(builder, a_re, b_im, _fma(builder, a_im, b_re, b_im))
    return builder.fadd(a_re, re), builder.fadd(a_im, im)


def _tripled(builder: Any, vectors: Vectors, _scalars: Vectors) -> Vectors:
    """Return the product of the last three of four complex numbers."""
    _, _, a_re, a_im, g_re, g_im, b_re, b_im = vectors
    c_re = _fma(builder, a_re, g_re, builder.fneg(builder.fmul(a_im, g_im)))
    c_im = _fma(builder, a_re, g_im, builder.fmul(a_im, g_re))
    re = _fma(builder, c_re, b_re, builder.fneg(builder.fmul(c_im, b_im)))
    im = _fma(builder, c_re, b_im, builder.fmul(c_im, b_re))
    return re, im


def _weighted(builder: Any, vectors: Vectors, scalars: Vectors) -> Vectors:
    """Return two sums, each with x times a weight of its own."""
    first, second, x = vectors
    return _fma(builder, scalars[0], x, first), _fma(builder, scalars[1], x, second)


def _scaled(builder: Any, vectors: Vectors, scalars: Vectors) -> Vectors:
    """Return x times a number."""
    return (builder.fmul(vectors[1], scalars[0]),)


def _copied(_builder: Any, vectors: Vectors, _scalars: Vectors) -> Vectors:
    """Return x."""
    return (vectors[1],)


def _normalized(builder: Any, vectors: Vectors, scalars: Vectors) -> Vectors:
    """Return (x - mean) times a number, times a scale, plus a bias."""
    _, x, scale, bias = vectors
    return (_fma(builder, builder.fmul(builder.fsub(x, scalars[0]), scalars[1]), scale, bias),)


def _added(builder: Any, vectors: Vectors, _scalars: Vectors) -> Vectors:
    """Return y + a b."""
    y, a, b = vectors
    return (_fma(builder, a, b, y),)


def _sigmoid(builder: Any, x: Any) -> Any:
    """Return 1 / (1 + exp(-x)), within a few units in the last place."""
    x = call(builder, f"llvm.minnum.v{LANES}f32", [x, _constant(87.0)], _RUN)
    x = call(builder, f"llvm.maxnum.v{LANES}f32", [x, _constant(-87.0)], _RUN)
    x = builder.fneg(x)
    whole = call(builder, f"llvm.rint.v{LANES}f32", [builder.fmul(x, _constant(1.4426950408889634))], _RUN)
    rest = _fma(builder, whole, _constant(-0.693359375), x)  # ln 2 in two parts, the first exact in 10 bits
    rest = _fma(builder, whole, _constant(2.12194440054690583e-4), rest)
    power = _constant(1 / 5040)
    for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):  # Taylor: below 1e-8 for |rest| < 0.35
        power = _fma(builder, power, rest, _constant(factor))
    exponent = builder.shl(builder.fptosi(whole, _INTS), ir.Constant(_INTS, [23] * LANES))
    exp = builder.bitcast(builder.add(builder.bitcast(power, _INTS), exponent), _RUN)
    return builder.fdiv(_constant(1.0), builder.fadd(exp, _constant(1.0)))


def _gelu(builder: Any, vectors: Vectors, _scalars: Vectors) -> Vectors:
    """Return gelu in its tanh form: x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))."""
    x = vectors[1]
    slope = _fma(builder, builder.fmul(x, x), _constant(0.044715 * 1.5957691216057308), _constant(1.5957691216057308))
    return (builder.fmul(x, _sigmoid(builder, builder.fmul(x, slope))),)


def _gated(builder: Any, vectors: Vectors, _scalars: Vectors) -> Vectors:
    """Return y sigmoid(z) + skip."""
    _, y, z, skip = vectors
    return (_fma(builder, y, _sigmoid(builder, z), skip),)


decay = _over(0, (2, 2, 2), _decayed)
"""``h, re, im, a, re, im, b, re, im, n``: ``h`` becomes ``h + a h + b``, complex."""
compound = _over(0, (2, 2), _compounded)
triple = _over(0, (2, 2, 2, 2), _tripled)
add_weighted = _over(2, (2, 1), _weighted)
copy = _over(0, (1, 1), _copied)
scale = _over(1, (1, 1), _scaled)
normalize = _over(2, (1, 1, 1, 1), _normalized)
add_product = _over(0, (1, 1, 1), _added)
gelu = _over(0, (1, 1), _gelu)
gate = _over(0, (1, 1, 1, 1), _gated)


@intrinsic
def prefetch(_typing: Any, array: Any, _first: Any) -> Any:
    """Ask for the line of the cache that holds a number of an array which will be read soon."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        options = [ir.Constant(INT32, 0), ir.Constant(INT32, 2), ir.Constant(INT32, 1)]  # to read; near; data
        call(builder, "llvm.prefetch.p0", [place, *options], ir.VoidType())
        return context.get_dummy_value()

    return types.void(array, types.int64), generate
