"""Activations as the kernels read them: columns of 8-bit limbs, four to a word."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.config import FP16_FRACTION_BITS
from tern_hw.kernels.emit import DIGITS_PER_FIELDS
from tern_hw.kernels.layout import KernelMatrix
from tern_hw.kernels.loops import (
    BATCHES,
    JOB_NUMBERS,
    OUT,
    PAIRS,
    SINGLE,
    TOTALS,
    WORDS,
)
from tern_hw.reference.jit import jit

__all__ = ["WIDTHS", "Job", "limbs_of", "prepare_job"]

#: Columns that one pass computes side by side.
WIDTHS: Final = (1, 2, 4, 8)


@dataclass(frozen=True, eq=False)
class Job:
    """What a kernel is called with, see `loops`."""

    #: int64 [JOB_NUMBERS].
    numbers: NDArray[np.int64]
    #: What the numbers point at, besides the matrix and the result: it must live as long.
    memory: NDArray[np.uint8]
    #: Largest sum of |x| over a group.
    largest: int


def prepare_job(
    limbs: NDArray[np.int8], matrix: KernelMatrix, width: int, result: NDArray[Any]
) -> Job:
    """Place columns of limbs in the order of a matrix's stream.

    Parameters
    ----------
    limbs : int8 [C, K]
    matrix : KernelMatrix
        With a stream.
    width : int
        Columns side by side.
    result : float32 or float64 [batches * width, 32 * P]
        Takes the sums; rows beyond C those of columns of 0.
    """
    groups, count = len(matrix.starts) - 1, len(result)
    fields = DIGITS_PER_FIELDS[matrix.packing]
    words = matrix.steps * fields * count
    memory = np.empty(4 * (words + (2 * groups + (groups + 1) // 2) * count), np.uint8)
    numbers = np.empty(JOB_NUMBERS, np.int64)
    largest = _prepare(
        limbs,
        matrix.numbers,
        matrix.starts,
        matrix.group_inputs,
        fields,
        width,
        memory,
        result.view(np.uint8),
        result.itemsize == 4,
        numbers,
    )
    return Job(numbers, memory, int(largest))


@jit
def _prepare(
    limbs: NDArray[np.int8],
    matrix_numbers: NDArray[np.int64],
    starts: NDArray[np.int64],
    group_inputs: int,
    fields: int,
    width: int,
    memory: NDArray[np.uint8],
    result: NDArray[np.uint8],
    single: bool,
    numbers: NDArray[np.int64],
) -> np.int64:
    """Fill memory and numbers; return the largest sum of |x| over a group."""
    columns, k = limbs.shape
    groups, count = len(starts) - 1, result.shape[0]
    batches = count // width
    memory[:] = 0
    places = starts[groups] * fields * count
    inputs = memory[: 4 * places].view(np.int8)
    words = memory[: 4 * places].view(np.int32)
    totals = memory[4 * places : 4 * (places + 2 * groups * count)].view(np.int32)
    pairs = memory[4 * (places + 2 * groups * count) :].view(np.int16)
    pair_count = (groups + 1) // 2
    largest = np.int64(0)
    for c in range(columns):
        b = c // width
        column = c - b * width
        for g in range(groups):
            first = g * group_inputs
            group = limbs[c, first : min(first + group_inputs, k)]
            total, size = np.int32(0), np.int32(0)
            for i in range(len(group)):
                x = np.int32(group[i])
                total += x
                size += abs(x)
            totals[2 * ((g * batches + b) * width + column)] = -total
            # In 16 bits: where it does not fit, no kernel reads it.
            totals[2 * ((g * batches + b) * width + column) + 1] = total << 16
            pairs[2 * ((b * pair_count + g // 2) * width + column) + g % 2] = total
            largest = max(largest, np.int64(size))
            # Words of this group before this batch's, and this column's place among its own.
            steps = starts[g + 1] - starts[g]
            word = (starts[g] * batches + b * steps) * fields * width + column
            whole = len(group) // 4
            fours = group[: 4 * whole].view(np.int32)
            for i in range(whole):
                words[word + i * width] = fours[i]
            for i in range(4 * whole, len(group)):
                inputs[4 * (word + whole * width) + i - 4 * whole] = group[i]
    numbers[:] = matrix_numbers
    numbers[WORDS] = words.ctypes.data
    numbers[TOTALS] = totals.ctypes.data
    numbers[PAIRS] = pairs.ctypes.data
    numbers[OUT] = result.ctypes.data
    numbers[BATCHES] = batches
    numbers[SINGLE] = single
    return largest


def limbs_of(activations: NDArray[Any]) -> tuple[NDArray[np.int8], int, int]:
    """Cut activations into balanced 8-bit limbs: x = sum_l limb[l] * 2**(8 * l + exponent).

    Parameters
    ----------
    activations : int8 or float16 [M, K]
        Finite.

    Returns
    -------
    limbs : int8 [M * L, K]
        A token's limbs in turn, least significant first.
    count : int
        L: 1 of int8 activations, at most 6 of fp16 ones.
    exponent : int
    """
    if activations.dtype == np.int8:
        return activations, 1, 0
    bits = activations.view(np.uint16)
    units: NDArray[np.int64] = np.empty(bits.shape, np.int64)
    used = int(_units(bits, units))
    # Zeros common to all at the low end cost a limb for nothing.
    spare = max((used & -used).bit_length() - 1, 0)
    count = _limb_count(units, spare)
    limbs: NDArray[np.int8] = np.empty((len(units), count, units.shape[1]), np.int8)
    _cut(units, spare, limbs)
    return limbs.reshape(-1, units.shape[1]), count, spare - FP16_FRACTION_BITS


@jit
def _units(bits: NDArray[np.uint16], units: NDArray[np.int64]) -> np.int64:
    """Set units to finite binary16 values in units of 2**-24; return the bits that any uses."""
    used = np.int64(0)
    for m in range(bits.shape[0]):
        for k in range(bits.shape[1]):
            code = np.int64(bits[m, k])
            exponent = (code >> 10) & 31
            value = code & 1023
            if exponent:
                value = (value | 1024) << (exponent - 1)
            used |= value
            units[m, k] = -value if code >> 15 else value
    return used


@jit
def _limb_count(units: NDArray[np.int64], spare: int) -> int:
    """Return how many balanced limbs hold every unit >> spare."""
    low, high = 0, 0
    for m in range(units.shape[0]):
        for k in range(units.shape[1]):
            low = min(low, units[m, k] >> spare)
            high = max(high, units[m, k] >> spare)
    count = 1
    # Limbs from -128 to 127: n of them reach from -128 to 127 times (256**n - 1) / 255.
    ones = 1
    while low < -128 * ones or high > 127 * ones:
        ones = 256 * ones + 1
        count += 1
    return count


@jit
def _cut(units: NDArray[np.int64], spare: int, limbs: NDArray[np.int8]) -> None:
    """Set the limbs of every unit >> spare."""
    for m in range(units.shape[0]):
        for k in range(units.shape[1]):
            rest = units[m, k] >> spare
            for limb in range(limbs.shape[1]):
                part = ((rest + 128) & 255) - 128
                limbs[m, limb, k] = part
                rest = (rest - part) >> 8
