"""The compiled inner loop: exact row sums of scale * S + shift * X, lane = row."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.reference.jit import jit
from tern_hw.reference.layout import STEP_WORDS, WORD_DIGITS
from tern_hw.reference.prefetch import prefetch

__all__ = ["row_sums"]

#: Words whose digits' products are summed in 16 bits: 64 * 2 * 128 = 2**14 at most.
SHORT_WORDS: Final = 8
#: Words fetched ahead of those in use: one short sum further than the next.
AHEAD_WORDS: Final = 2 * SHORT_WORDS
#: Words of a row in a cache line of 64 bytes.
LINE_WORDS: Final = 32


@jit
def row_sums(
    words: NDArray[np.uint16],
    scale: NDArray[np.signedinteger],
    shift: NDArray[np.signedinteger],
    starts: NDArray[np.int64],
    telescoped: NDArray[np.int16],
    sums: NDArray[np.int64],
    result: NDArray[np.int64],
) -> None:
    """Set result[b, c, h, r] = sum_g scale * S + shift * X for every block, column, half and row.

    Parameters
    ----------
    words : uint16 [B, W, R]
    scale, shift : int32 or int64 [B, H, groups, R]
    starts : int64 [groups + 1]
        In words; every group is a whole number of steps.
    telescoped : int16 [C, 8 * W]
        Activations x as y_i = x_i - 4 * x_(i-1) within a word, y_0 = x_0; -128 <= x <= 127.
    sums : int64 [C, groups]
        X: the sum of x over each group.
    result : int64 [B, C, H, R]
        Written.

    Notes
    -----
    A word w of digits d_0 ... d_7 has w >> 2i = d_i + 4 * (w >> 2(i + 1)), so that sum_i d_i * x_i
    = sum_i (w >> 2i) * y_i: no digit needs a mask. The sums of digit * x over 64 digits fit 16 bits
    and are taken modulo 2**16, whatever its parts exceed; over a group they take 32 bits:
    C <= 2 * 128 * MAX_IN_FEATURES = 2**30. S = C - X.
    """
    rows = words.shape[2]
    digit_sums = np.zeros(rows, np.int32)
    short_sums = np.zeros(rows, np.int16)
    for b in range(words.shape[0]):
        block = words[b]
        for c in range(telescoped.shape[0]):
            y = telescoped[c]
            result[b, c] = 0
            for g in range(sums.shape[1]):
                _sum_digits(block, y, starts[g], starts[g + 1], short_sums, digit_sums)
                x = sums[c, g]
                for h in range(scale.shape[1]):
                    for r in range(rows):
                        s = np.int64(digit_sums[r]) - x
                        result[b, c, h, r] += scale[b, h, g, r] * s + shift[b, h, g, r] * x


@jit
def _sum_digits(
    words: NDArray[np.uint16],
    y: NDArray[np.int16],
    first: int,
    last: int,
    short_sums: NDArray[np.int16],
    digit_sums: NDArray[np.int32],
) -> None:
    """Set digit_sums[r] to the sum of digit * x over the words from first up to last (C)."""
    rows = words.shape[1]
    digit_sums[:] = 0
    for start in range(first, last, SHORT_WORDS):
        ahead = (start + AHEAD_WORDS) * rows
        for word in range(ahead, ahead + SHORT_WORDS * rows, LINE_WORDS):
            prefetch(words, word)
        _sum_short(words, y, start, min(start + SHORT_WORDS, last), short_sums)
        for r in range(rows):
            digit_sums[r] += short_sums[r]


@jit
def _sum_short(
    words: NDArray[np.uint16],
    y: NDArray[np.int16],
    first: int,
    last: int,
    short_sums: NDArray[np.int16],
) -> None:
    """Set short_sums[r] to the sum of digit * x over at most SHORT_WORDS words."""
    short_sums[:] = 0
    for q in range(first, last, STEP_WORDS):
        k = q * WORD_DIGITS
        y0, y1, y2, y3 = y[k], y[k + 1], y[k + 2], y[k + 3]
        y4, y5, y6, y7 = y[k + 4], y[k + 5], y[k + 6], y[k + 7]
        z0, z1, z2, z3 = y[k + 8], y[k + 9], y[k + 10], y[k + 11]
        z4, z5, z6, z7 = y[k + 12], y[k + 13], y[k + 14], y[k + 15]
        # Each result is cast to 16 bits, or the compiler would widen it to 64.
        for r in range(words.shape[1]):
            v, w = words[q, r], words[q + 1, r]
            part = np.int16(np.int16(v) * y0)
            part = np.int16(part + np.int16(np.int16(v >> 2) * y1))
            part = np.int16(part + np.int16(np.int16(v >> 4) * y2))
            part = np.int16(part + np.int16(np.int16(v >> 6) * y3))
            part = np.int16(part + np.int16(np.int16(v >> 8) * y4))
            part = np.int16(part + np.int16(np.int16(v >> 10) * y5))
            part = np.int16(part + np.int16(np.int16(v >> 12) * y6))
            part = np.int16(part + np.int16(np.int16(v >> 14) * y7))
            part = np.int16(part + np.int16(np.int16(w) * z0))
            part = np.int16(part + np.int16(np.int16(w >> 2) * z1))
            part = np.int16(part + np.int16(np.int16(w >> 4) * z2))
            part = np.int16(part + np.int16(np.int16(w >> 6) * z3))
            part = np.int16(part + np.int16(np.int16(w >> 8) * z4))
            part = np.int16(part + np.int16(np.int16(w >> 10) * z5))
            part = np.int16(part + np.int16(np.int16(w >> 12) * z6))
            part = np.int16(part + np.int16(np.int16(w >> 14) * z7))
            short_sums[r] += part
