"""The loops over words and bytes whose meaning depends on those before, compiled.

Each fills the columns of ``room`` up to their length, keeps what it has to remember in ``state`` and returns how many
words or bytes it has used, how many events it has written, and 0 or what is wrong at the first word or byte not used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.compiled import compiled

from .columns import Room

Array = NDArray[Any]

UNKNOWN_WORD = 1
TEXT_ERRORS = {
    1: ("a number", "something else"),
    2: ("as many columns as before", "fewer"),
    3: ("as many columns as before", "more"),
    4: ("a whole number", "a fraction"),
    5: ("a number of at most 18 digits", "a longer one"),
}

TIME_HIGH, HAS_TIME, WRAPS, TIME_LOW, ROW, COLUMN, POLARITY, HAS_ROW, N_LOST, LAST_LOW, OFFSET, COUNTS_STEPS = range(12)
"""What the state of the Prophesee loops holds.

Where ``COUNTS_STEPS`` is 1, each step back of EVT3's lower time adds 4,096 us to ``OFFSET``.
"""

N_STATE = 12


@compiled
def decode_evt2(words: Array, state: Array, room: Room) -> tuple[int, int, int]:
    """Decode words of EVT2; ``state`` as named above."""
    n = 0
    high, has_time, wraps = state[TIME_HIGH], state[HAS_TIME], state[WRAPS]
    base = ((wraps << 28) | high) << 6
    used = 0
    wrong = 0
    for index in range(words.size):
        word = np.int64(words[index])
        kind = word >> 28
        if kind <= 1:
            if has_time == 0:
                state[N_LOST] += 1
            else:
                if n == room.x.size:
                    break
                room.x[n] = (word >> 11) & 2047
                room.y[n] = word & 2047
                room.p[n] = kind
                room.t_us[n] = base | ((word >> 22) & 63)
                room.at[n] = index
                n += 1
        elif kind == 8:
            new = word & 0xFFFFFFF
            if has_time != 0 and high - new > 1 << 27:
                wraps += 1
            high, has_time = new, 1
            base = ((wraps << 28) | high) << 6
        elif kind != 10 and kind < 14:
            wrong = UNKNOWN_WORD
            break
        used = index + 1
    state[TIME_HIGH], state[HAS_TIME], state[WRAPS] = high, has_time, wraps
    return used, n, wrong


@compiled
def decode_evt3(words: Array, state: Array, room: Room) -> tuple[int, int, int]:
    """Decode words of EVT3; ``state`` as named above."""
    n = 0
    high, has_time, wraps, low = state[TIME_HIGH], state[HAS_TIME], state[WRAPS], state[TIME_LOW]
    row, column, polarity, has_row = state[ROW], state[COLUMN], state[POLARITY], state[HAS_ROW]
    last_low, offset, counts_steps = state[LAST_LOW], state[OFFSET], state[COUNTS_STEPS] == 1
    time = offset + ((wraps << 24) | (high << 12) | low)
    used = 0
    wrong = 0
    for index in range(words.size):
        word = np.int64(words[index])
        kind = word >> 12
        if kind == 2:
            if has_row == 0:
                state[N_LOST] += 1
            else:
                if n == room.x.size:
                    break
                room.x[n] = word & 2047
                room.y[n] = row
                room.p[n] = (word >> 11) & 1
                room.t_us[n] = time
                room.at[n] = index
                n += 1
        elif kind == 4 or kind == 5:
            width = 12 if kind == 4 else 8
            if n + 12 > room.x.size:
                break
            bits = word & ((1 << width) - 1)
            for bit in range(width):
                if (bits >> bit) & 1:
                    if has_row == 0:
                        state[N_LOST] += 1
                    else:
                        room.x[n] = column + bit
                        room.y[n] = row
                        room.p[n] = polarity
                        room.t_us[n] = time
                        room.at[n] = index
                        n += 1
            column = min(column + width, 1 << 14)
        elif kind == 0:
            row = word & 2047
            has_row = has_time
        elif kind == 3:
            column = word & 2047
            polarity = (word >> 11) & 1
        elif kind == 6:
            new = word & 4095
            if counts_steps and new < last_low:
                offset += 4096
            low, last_low = new, new
            time = offset + ((wraps << 24) | (high << 12) | low)
        elif kind == 8:
            new = word & 4095
            if has_time != 0 and high - new > 1 << 11:
                wraps += 1
            if new != high or has_time == 0:
                low = 0
            high, has_time = new, 1
            time = offset + ((wraps << 24) | (high << 12) | low)
        elif kind == 1 or kind == 9 or 11 <= kind <= 13:
            wrong = UNKNOWN_WORD
            break
        used = index + 1
    state[TIME_HIGH], state[HAS_TIME], state[WRAPS], state[TIME_LOW] = high, has_time, wraps, low
    state[LAST_LOW], state[OFFSET] = last_low, offset
    state[ROW], state[COLUMN], state[POLARITY], state[HAS_ROW] = row, column, polarity, has_row
    return used, n, wrong


@compiled
def decode_es(data: Array, state: Array, room: Room) -> tuple[int, int, int]:
    """Decode bytes of Event Stream; ``state``: the time, 0 for a DVS or 1 for an ATIS, exposure events left out."""
    n = 0
    time, is_atis = state[0], state[1]
    shift = 2 if is_atis else 1
    most = 63 if is_atis else 127
    index = 0
    while index < data.size:
        head = np.int64(data[index])
        ticks = head >> shift
        if ticks == most:
            # With all bits of the rest at 0 it is a reset mark; else it stands for that many times the most.
            time += most * (head & ((1 << shift) - 1))
            index += 1
            continue
        if index + 5 > data.size or n == room.x.size:
            break
        time += ticks
        if is_atis and head & 1:
            state[2] += 1
        else:
            room.x[n] = np.int64(data[index + 1]) | (np.int64(data[index + 2]) << 8)
            room.y[n] = np.int64(data[index + 3]) | (np.int64(data[index + 4]) << 8)
            room.p[n] = (head >> (shift - 1)) & 1
            room.t_us[n] = time
            room.at[n] = index
            n += 1
        index += 5
    state[0] = time
    return index, n, 0


@compiled
def decode_text(data: Array, form: Array, room: Room) -> tuple[int, int, int]:
    """Decode lines of text.

    ``form``: the delimiter, digits to move the point of times by, then the column of each field: x, y, p, t, none.

    ``data`` ends with the end of a line. A line that is wrong begins at the byte that is returned.
    """
    delimiter, decimals = form[0], form[1]
    n_fields = form.size - 2
    n = 0
    index = 0
    size = data.size
    while index < size:
        start = index
        while index < size and (data[index] == 32 or data[index] == 9 or data[index] == 13):
            index += 1
        if index < size and data[index] == 10:
            index += 1
            continue
        if n == room.x.size:
            return start, n, 0
        field = 0
        while True:
            while data[index] == 32 or (data[index] == 9 and delimiter != 9):
                index += 1
            role = form[2 + field]
            if role == 4:
                while data[index] != delimiter and data[index] != 10:
                    index += 1
            else:
                negative = data[index] == 45
                if negative or data[index] == 43:
                    index += 1
                value = np.int64(0)
                digits = 0
                shift = decimals if role == 3 else 0
                digit = np.uint8(data[index] - 48)
                while digit <= 9:
                    value = value * 10 + digit
                    digits += 1
                    index += 1
                    digit = np.uint8(data[index] - 48)
                if digits > 18:
                    return start, n, 5
                if digits == 0 and role == 2:
                    lower = data[index] | 32
                    if lower == 116 or lower == 102:  # True, False
                        value = np.int64(lower == 116)
                        digits = 1
                        while 97 <= (data[index] | 32) <= 122:
                            index += 1
                if data[index] == 46 and digits > 0:
                    index += 1
                    is_up = False
                    first = True
                    while 48 <= data[index] <= 57:
                        digit = data[index] - 48
                        if shift > 0:
                            value = value * 10 + digit
                            shift -= 1
                            digits += 1
                            if digits > 18:
                                return start, n, 5
                        elif role == 3 and decimals > 0:
                            if first:
                                is_up = digit >= 5
                                first = False
                        elif digit != 0:
                            return start, n, 4
                        index += 1
                    if is_up:
                        value += 1
                if digits == 0:
                    return start, n, 1
                while shift > 0:
                    value *= 10
                    shift -= 1
                    digits += 1
                    if digits > 18:
                        return start, n, 5
                if negative:
                    value = -value
                if shift < 0:
                    value = value // 1000
                if role == 0:
                    room.x[n] = value
                elif role == 1:
                    room.y[n] = value
                elif role == 2:
                    room.p[n] = value
                else:
                    room.t_us[n] = value
                end = data[index]
                if end != 10 and end != 13 and end != 32 and end != 9 and end != delimiter:
                    return start, n, 1
                while data[index] == 32 or data[index] == 13 or (data[index] == 9 and delimiter != 9):
                    index += 1
            field += 1
            if data[index] == 10:
                break
            if data[index] == delimiter:
                index += 1
            elif delimiter != 32:
                return start, n, 1
            if field == n_fields:
                return start, n, 3
        if field < n_fields:
            return start, n, 2
        room.at[n] = start
        n += 1
        index += 1
    return index, n, 0
