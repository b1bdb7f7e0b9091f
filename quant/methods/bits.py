"""Bits that a stored weight takes, counted the same way for every method: scales included."""

from tern_hw.matrix import GroupSize, group_count
from tern_hw.packing import packed_row_bytes

__all__ = ["SCALE_BITS", "grouped_bits", "ternary_bits"]

#: A scale or a shift is a binary16.
SCALE_BITS = 16


def grouped_bits(
    shape: tuple[int, ...], group_size: GroupSize, code_bits: float, values: int
) -> float:
    """Return bits a weight of ``[N, K]``: its code, and its part of the group's binary16 values."""
    return code_bits + SCALE_BITS * values * group_count(shape[1], group_size) / shape[1]


def ternary_bits(shape: tuple[int, ...], group_size: GroupSize, *, shift: bool) -> float:
    """Return bits a ternary weight, five trits a byte, with a scale and perhaps a shift a group.

    A row is a whole number of bytes, as in the artifact.
    """
    code_bits = 8 * packed_row_bytes(shape[1], "base3") / shape[1]
    return grouped_bits(shape, group_size, code_bits, 2 if shift else 1)
