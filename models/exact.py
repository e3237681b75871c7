"""Sums of floats without any rounding, so that neither order nor sharding shows in the result."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

_UNIT = 1074
"""Every finite double is a whole number of 2^-1074."""


def exact_sum(values: Iterable[float], so_far: str = "0") -> str:
    """Return the sum of finite values as a whole number of 2^-1074, in hexadecimal.

    Law: equal for any order, and ``merged`` sums of parts are the sum of the whole.
    """
    total = int(so_far, 16)
    for value in values:
        numerator, denominator = float(value).as_integer_ratio()
        total += numerator << (_UNIT - (denominator.bit_length() - 1))
    return f"{total:x}"


def merged(a: str, b: str) -> str:
    """Return the sum of two sums."""
    return f"{int(a, 16) + int(b, 16):x}"


def rounded(total: str, divisor: int = 1) -> float:
    """Return a sum over a positive whole number, rounded once; NaN for a divisor of 0."""
    if not divisor:
        return math.nan
    return float(Fraction(int(total, 16), divisor << _UNIT))
