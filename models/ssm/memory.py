"""How an event state-space model and its state lie in memory for the compiled loops of the online engine."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Int64s = NDArray[np.int64]

N_FIELDS = 20
(
    IN,  # inputs, filled up to whole panels, as are outputs and states
    IN_TRUE,
    OUT,
    OUT_TRUE,
    STATES,  # complex ones: real parts lie before imaginary ones
    STRIDE,
    B,  # where packed matrices, vectors and states begin
    C,
    D,  # -1: a matrix, below C
    GATE,
    GATE_BIAS,
    SKIP,  # -1: none
    SKIP_BIAS,
    SCALE,
    BIAS,
    GAIN,  # -1: not of the interval
    DECAY,
    RATE,
    STATE,
    ZERO,
) = range(N_FIELDS)
"""Columns of the plan: sizes of a layer, and where its numbers begin."""

LAST, MEAN, BY_TIME = 0, 1, 2
"""How rows become one: the first or last of them, their mean, their mean by time."""

AFFINE, LAYER_NORM = 0, 1

EPS_MS = 1e-6
NORM_EPS = np.float32(1e-6)
BITS = 8
N_BYTES = 3
"""A table of decays for each of the low bytes of an interval in microseconds; longer ones are worked out."""

TABLE_ROWS = N_BYTES << BITS
RUN = 16


class Model(NamedTuple):
    """Weights, packed: all matrices and vectors in one array, a row for each token, decays.

    ``modes`` holds how groups are pooled, how the head is, the kind of norm, and whether it comes first.
    """

    weights: Floats
    plan: Int64s
    modes: Int64s
    table: Floats
    decays: Floats
    rates: Doubles


class Carried(NamedTuple):
    """Everything that the next answer depends on, changed in place.

    ``states`` holds for each layer ``h``, the kept ``h``, two weighted sums of the open group, their weights;
    ``counters`` ``[layers + 1, 2]`` the events of the open group and their time, at last the rows of the output;
    ``head`` the sum of the output's rows, and of their weights.
    """

    states: Floats
    counters: Int64s
    head: Doubles


class Work(NamedTuple):
    """Room for the rows of one block of events."""

    x: Floats
    u: Floats
    bu: Floats
    kept: Floats
    skip: Floats
    y: Floats
    z: Floats
    moments: Floats
    gaps: Int64s
    last: Int64s


class Packed(NamedTuple):
    """Model and room in as few arrays as there are kinds of numbers, for a call takes time for each array.

    ``floats`` holds weights, decays and the room, whose sizes ``ints`` begins with; then come modes, plan, and room.
    """

    table: Floats
    floats: Floats
    ints: Int64s
    rates: Doubles


N_MODES = 4
N_ROWS = RUN * 4 + 1
"""Rows of a layer that one block of events can become: an open group may end beside it."""

FLOAT_PARTS = 10
FIRST_MODE = FLOAT_PARTS + 1
