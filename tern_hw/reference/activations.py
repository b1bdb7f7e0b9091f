"""Activations as 8-bit integer limbs, laid out as the kernels read them."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.config import FP16_FRACTION_BITS
from tern_hw.reference.layout import WORD_DIGITS, PreparedMatrix

__all__ = ["LIMB_BITS", "Columns", "columns"]

#: Bits of a limb; limbs are balanced: -128 to 127.
LIMB_BITS: Final = 8


@dataclass(frozen=True, eq=False)
class Columns:
    """M tokens of L limbs each: x = sum_l limb[l] * 2**(8 * l + exponent)."""

    #: Telescoped limbs, int16 [M * L, padded K]; see `kernels.row_sums`.
    telescoped: NDArray[np.int16]
    #: Sum of each limb over each group (X), int64 [M * L, groups].
    sums: NDArray[np.int64]
    #: Limbs of a token (L): 1 for int8, at most 6 for fp16.
    limbs: int
    #: Binary exponent of the lowest limb's unit.
    exponent: int


def columns(activations: NDArray[Any], matrix: PreparedMatrix) -> Columns:
    """Cut activations into limbs and place them in the matrix's padded order.

    Parameters
    ----------
    activations : int8 or float16 [M, K]
        Finite.
    matrix : PreparedMatrix

    Returns
    -------
    Columns
    """
    limbs, exponent = _limbs(activations)
    tokens, count, _ = limbs.shape
    width = int(matrix.starts[-1]) * WORD_DIGITS
    padded = np.zeros((tokens * count, width), np.int16)
    padded[:, matrix.places] = limbs.reshape(tokens * count, -1)
    sums = np.add.reduceat(padded, matrix.starts[:-1] * WORD_DIGITS, axis=1, dtype=np.int64)
    return Columns(_telescoped(padded), sums, count, exponent)


def _limbs(activations: NDArray[Any]) -> tuple[NDArray[np.integer], int]:
    """Return integer limbs [M, L, K], least significant first, and the unit's exponent."""
    if activations.dtype == np.int8:
        return activations[:, None], 0
    units = np.ldexp(activations.astype(np.float64), FP16_FRACTION_BITS).astype(np.int64)
    # Zeros common to all at the low end cost a limb for nothing.
    used = int(np.bitwise_or.reduce(units, axis=None))
    spare = max((used & -used).bit_length() - 1, 0)
    limbs: list[NDArray[np.int64]] = []
    rest = units >> spare
    while not limbs or rest.any():
        limb = ((rest + 128) & 255) - 128
        limbs.append(limb)
        rest = (rest - limb) >> LIMB_BITS
    return np.stack(limbs, axis=1), spare - FP16_FRACTION_BITS


def _telescoped(padded: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return y with y_0 = x_0 and y_i = x_i - 4 * x_(i-1) within each word."""
    words = padded.reshape(len(padded), -1, WORD_DIGITS)
    result = words.copy()
    result[..., 1:] -= 4 * words[..., :-1]
    return result.reshape(padded.shape)
