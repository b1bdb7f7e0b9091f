"""The compiled loops over blocks of rows, groups and columns."""

from functools import cache
from typing import Any, Final

import numba
import numpy as np
from numba import carray, types

from tern_hw.kernels.atomics import pointer
from tern_hw.kernels.emit import (
    BLOCK_BYTES,
    BLOCK_ROWS,
    DIGITS_PER_FIELDS,
    EMITTED,
    add_group,
    add_rests,
)

__all__ = [
    "BATCHES",
    "GROUPS",
    "JOB_NUMBERS",
    "OUT",
    "PAIRS",
    "ROW",
    "RUN",
    "SINGLE",
    "STARTS",
    "STREAM",
    "STRIDE",
    "TOTALS",
    "UNITS",
    "WORDS",
    "row_sums_of",
]

#: A kernel as C sees it: a job's numbers, its first block, and the end of its blocks.
KERNEL: Final = types.void(types.CPointer(types.int64), types.int64, types.int64)

#: A job's numbers: addresses of arrays, then sizes. Compiled functions of other files hold these
#: places as they were when they were compiled: who changes one touches those files, too.
STREAM: Final = 0  #: uint8 [P, stride]
STARTS: Final = 1  #: int64 [groups + 1]
UNITS: Final = 2  #: float64 [32 * P]; of integer scales
WORDS: Final = 3  #: int32, as in `columns.Columns`
TOTALS: Final = 4  #: int32 [groups, batches, columns, 2]: -X and X * 2**16
PAIRS: Final = 5  #: int32 [batches, pairs, columns]; of integer scales
OUT: Final = 6  #: float64, or float32 where SINGLE is set, [batches * columns, row]
STRIDE: Final = 7  #: bytes of a block
GROUPS: Final = 8
BATCHES: Final = 9
ROW: Final = 10  #: 32 * P
RUN: Final = 11  #: groups, an even number, whose sums stay within 32 bits; of integer scales
SINGLE: Final = 12  #: not 0: sums are rounded to float32
JOB_NUMBERS: Final = 13


@cache
def row_sums_of(instruction_set: str, packing: str, columns: int, *, integers: bool) -> int:
    """Return the address of a kernel, a C function of a job's numbers and a range of blocks.

    Parameters
    ----------
    instruction_set, packing : str
    columns : int
        Columns side by side: 1, 2, 4 or 8.
    integers : bool
        Scales and shifts are 16-bit integers, see `layout.KernelMatrix`.

    Notes
    -----
    Compiled at the first call, and kept on disk: what the closure holds is part of the key.
    """
    kernel = f"{instruction_set}/{packing}/{columns}/{EMITTED}"
    build = _integer_sums if integers else _wide_sums
    return build(kernel, DIGITS_PER_FIELDS[packing] * columns, columns)


def _compiled(function: Any) -> int:
    """Return the address of a compiled kernel; cached on disk where a folder can be written."""
    try:
        return numba.cfunc(KERNEL, cache=True)(function).address
    except RuntimeError:  # raised when neither this folder nor the user's cache is writable
        return numba.cfunc(KERNEL)(function).address


def _wide_sums(kernel: str, step_words: int, columns: int) -> int:
    size = columns * BLOCK_ROWS

    def row_sums(job, first, last):  # type: ignore[no-untyped-def]
        stride, groups, row, single = job[STRIDE], job[GROUPS], job[ROW], job[SINGLE]
        # One batch is all there is of few columns: the compiler then drops the loop over batches.
        batches = job[BATCHES] if columns > 2 else 1
        count = batches * columns
        codes = carray(pointer(job[STREAM]), (last * stride,), np.uint8)
        starts = carray(pointer(job[STARTS]), (groups + 1,), np.int64)
        words = carray(pointer(job[WORDS]), (starts[groups] * batches * step_words,), np.int32)
        totals = carray(pointer(job[TOTALS]), (2 * groups * count,), np.int32)
        exact = carray(pointer(job[OUT]), (count, row), np.float64)
        rounded = carray(pointer(job[OUT]), (count, row), np.float32)
        # Sums of a block, side by side: in the result columns may lie a cache's way apart.
        tile = np.empty(count * BLOCK_ROWS, np.float64)
        for p in range(first, last):
            place = p * stride
            tile[:] = 0
            for g in range(groups):
                steps = starts[g + 1] - starts[g]
                # A group's codes stay in the first cache for all columns.
                for b in range(batches):
                    word = (starts[g] * batches + b * steps) * step_words
                    total = 2 * (g * batches + b) * columns
                    add_group(
                        kernel, codes, place, steps, words, word, totals, total, tile, b * size
                    )
                place += (steps + 1) * BLOCK_BYTES
            for c in range(count):
                sums = tile[c * BLOCK_ROWS : (c + 1) * BLOCK_ROWS]
                # Two loops, or neither would be compiled to vectors.
                if single:
                    to_single = rounded[c, p * BLOCK_ROWS : (p + 1) * BLOCK_ROWS]
                    for r in range(BLOCK_ROWS):
                        to_single[r] = np.float32(sums[r])
                else:
                    to_double = exact[c, p * BLOCK_ROWS : (p + 1) * BLOCK_ROWS]
                    for r in range(BLOCK_ROWS):
                        to_double[r] = sums[r]

    return _compiled(row_sums)


def _integer_sums(kernel: str, step_words: int, columns: int) -> int:
    size = columns * BLOCK_ROWS

    def row_sums(job, first, last):  # type: ignore[no-untyped-def]
        stride, groups, row, single = job[STRIDE], job[GROUPS], job[ROW], job[SINGLE]
        run = job[RUN]
        batches = job[BATCHES] if columns > 2 else 1
        count = batches * columns
        codes = carray(pointer(job[STREAM]), (last * stride,), np.uint8)
        starts = carray(pointer(job[STARTS]), (groups + 1,), np.int64)
        units = carray(pointer(job[UNITS]), (last * BLOCK_ROWS,), np.float64)
        words = carray(pointer(job[WORDS]), (starts[groups] * batches * step_words,), np.int32)
        totals = carray(pointer(job[TOTALS]), (2 * groups * count,), np.int32)
        all_pairs = (groups + 1) // 2
        pairs = carray(pointer(job[PAIRS]), (all_pairs * count,), np.int32)
        exact = carray(pointer(job[OUT]), (count, row), np.float64)
        rounded = carray(pointer(job[OUT]), (count, row), np.float32)
        rests = (starts[groups] + groups) * BLOCK_BYTES
        tile = np.empty(count * BLOCK_ROWS, np.float64)
        scaled = np.empty(count * BLOCK_ROWS, np.int32)
        rest = np.empty(count * BLOCK_ROWS, np.int32)
        for p in range(first, last):
            block = p * stride
            place = block
            tile[:] = 0
            for start in range(0, groups, run):
                scaled[:] = 0
                end = min(start + run, groups)
                for g in range(start, end):
                    steps = starts[g + 1] - starts[g]
                    for b in range(batches):
                        word = (starts[g] * batches + b * steps) * step_words
                        total = 2 * (g * batches + b) * columns
                        add_group(
                            kernel,
                            codes,
                            place,
                            steps,
                            words,
                            word,
                            totals,
                            total,
                            scaled,
                            b * size,
                        )
                    place += (steps + 1) * BLOCK_BYTES
                pair, last_pair = start // 2, (end + 1) // 2
                at = block + rests + pair * BLOCK_BYTES
                for b in range(batches):
                    word = (b * all_pairs + pair) * columns
                    add_rests(kernel, codes, at, last_pair - pair, pairs, word, rest, b * size)
                unit = units[p * BLOCK_ROWS : (p + 1) * BLOCK_ROWS]
                for c in range(count):
                    whole = scaled[c * BLOCK_ROWS : (c + 1) * BLOCK_ROWS]
                    left = rest[c * BLOCK_ROWS : (c + 1) * BLOCK_ROWS]
                    sums = tile[c * BLOCK_ROWS : (c + 1) * BLOCK_ROWS]
                    for r in range(BLOCK_ROWS):
                        sums[r] += whole[r] * unit[r] + left[r] * 2.0**-24
            for c in range(count):
                sums = tile[c * BLOCK_ROWS : (c + 1) * BLOCK_ROWS]
                # Two loops, or neither would be compiled to vectors.
                if single:
                    to_single = rounded[c, p * BLOCK_ROWS : (p + 1) * BLOCK_ROWS]
                    for r in range(BLOCK_ROWS):
                        to_single[r] = np.float32(sums[r])
                else:
                    to_double = exact[c, p * BLOCK_ROWS : (p + 1) * BLOCK_ROWS]
                    for r in range(BLOCK_ROWS):
                        to_double[r] = sums[r]

    return _compiled(row_sums)
