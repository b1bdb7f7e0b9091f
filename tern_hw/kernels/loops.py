"""The compiled loops over blocks of rows, groups and columns."""

from functools import cache
from typing import Any

import numba
import numpy as np
from numba import carray

from tern_hw.kernels import job
from tern_hw.kernels.atomics import pointer
from tern_hw.kernels.emit import (
    BLOCK_BYTES,
    BLOCK_ROWS,
    DIGITS_PER_FIELDS,
    EMITTED,
    add_group,
    add_rests,
)

__all__ = ["row_sums_of"]


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
    Compiled at the first call, and kept on disk: what the closure holds is part of the key. A
    branch on one of those is decided by the compiler.
    """
    kernel = f"{instruction_set}/{packing}/{columns}/{EMITTED}"
    three = f"{instruction_set}/{packing}/3of{columns}/{EMITTED}"
    step_words = DIGITS_PER_FIELDS[packing] * columns
    size = columns * BLOCK_ROWS

    def row_sums(numbers: Any, first: int, last: int) -> None:
        stride, groups, row = numbers[job.STRIDE], numbers[job.GROUPS], numbers[job.ROW]
        # One batch is all there is of few columns, and of binary16 scales any number fits a sum.
        batches = numbers[job.BATCHES] if columns > 2 else 1
        run = numbers[job.RUN] if integers else groups
        count, all_pairs = batches * columns, (groups + 1) // 2
        codes = carray(pointer(numbers[job.STREAM]), (last * stride,), np.uint8)
        starts = carray(pointer(numbers[job.STARTS]), (groups + 1,), np.int64)
        steps_of_all = starts[groups] * batches * step_words
        words = carray(pointer(numbers[job.WORDS]), (steps_of_all,), np.int32)
        totals = carray(pointer(numbers[job.TOTALS]), (2 * groups * count,), np.int32)
        exact = carray(pointer(numbers[job.OUT]), (count, row), np.float64)
        rounded = carray(pointer(numbers[job.OUT]), (count, row), np.float32)
        active = carray(pointer(numbers[job.ACTIVE]), (groups * batches,), np.int32)
        rests = (starts[groups] + groups) * BLOCK_BYTES
        # Sums of a block, side by side: in the result columns may lie a cache's way apart.
        tile = np.empty(count * BLOCK_ROWS, np.float64)
        scaled = np.empty(count * BLOCK_ROWS, np.int32)
        rest = np.empty(count * BLOCK_ROWS, np.int32)
        for p in range(first, last):
            block = p * stride
            place = block
            tile[:] = 0
            for start in range(0, groups, run):
                end = min(start + run, groups)
                scaled[:] = 0
                for g in range(start, end):
                    steps = starts[g + 1] - starts[g]
                    # A group's codes stay in the first cache for all columns.
                    for b in range(batches):
                        word = (starts[g] * batches + b * steps) * step_words
                        total, at = 2 * (g * batches + b) * columns, b * size
                        sums = scaled if integers else tile
                        if columns == 4 and active[g * batches + b] & 9 != 9:
                            # The first or the last is all 0: limbs of fp16 activations often are.
                            c = 1 - (active[g * batches + b] & 1)
                            word, total, at = word + c, total + 2 * c, at + c * BLOCK_ROWS
                            add_group(
                                three, codes, place, steps, words, word, totals, total, sums, at
                            )
                        else:
                            add_group(
                                kernel, codes, place, steps, words, word, totals, total, sums, at
                            )
                    place += (steps + 1) * BLOCK_BYTES
                if integers:
                    pairs = carray(pointer(numbers[job.PAIRS]), (all_pairs * count,), np.int32)
                    units = carray(pointer(numbers[job.UNITS]), (row,), np.float64)
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
                if numbers[job.SINGLE]:
                    to_single = rounded[c, p * BLOCK_ROWS : (p + 1) * BLOCK_ROWS]
                    for r in range(BLOCK_ROWS):
                        to_single[r] = np.float32(sums[r])
                else:
                    to_double = exact[c, p * BLOCK_ROWS : (p + 1) * BLOCK_ROWS]
                    for r in range(BLOCK_ROWS):
                        to_double[r] = sums[r]

    try:
        return int(numba.cfunc(job.KERNEL, cache=True)(row_sums).address)
    except RuntimeError:  # raised when neither this folder nor the user's cache is writable
        return int(numba.cfunc(job.KERNEL)(row_sums).address)
