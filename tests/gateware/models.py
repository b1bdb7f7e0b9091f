"""What blocks compute, in plain integers, where the tests of more than one block need it."""

import struct
from fractions import Fraction

from tern_hw.config import ArrayConfig

__all__ = ["POSITION", "half_units", "is_finite", "row_positions"]

#: The fields that say where in its row block a step is.
POSITION = ("chunk", "segment", "group", "group_last", "ragged", "row_last")


def is_finite(half: int) -> bool:
    """Return whether the bits are those of a binary16 that is neither infinite nor NaN."""
    return half >> 10 & 0x1F != 0x1F


def half_units(half: int) -> int:
    """Return a finite binary16 in units of 2**-24."""
    (value,) = struct.unpack("<e", struct.pack("<H", half))
    units = Fraction(value) * (1 << 24)
    assert units.denominator == 1
    return units.numerator


def row_positions(config: ArrayConfig, k: int) -> list[tuple]:
    """Return the positions of a row block's steps, as `POSITION` names them."""
    size = k if config.group_size == "row" else config.group_size
    rows = []
    for first in range(0, k, config.step_inputs):
        end = min(first + config.step_inputs, k)
        place = (first // config.lanes, first % config.lanes // config.step_inputs, first // size)
        group_last, row_last = end == k or end % size == 0, end == k
        ragged = place[0] == config.chunks(k) - 1
        rows.append((*place, group_last, ragged, row_last))
    return rows
