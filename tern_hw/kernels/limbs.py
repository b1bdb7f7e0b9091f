"""Sums of limbs to outputs: joined exactly, rounded once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tern_hw.config import FP16_FRACTION_BITS
from tern_hw.reference.jit import jit
from tern_hw.reference.rounding import FloatFormat, round_terms

__all__ = ["join"]


def join(sums: NDArray[np.float64], limbs: int, exponent: int, target: FloatFormat) -> NDArray[Any]:
    """Round sum_l sums[l] * 2**(8 * l + exponent) of each output, once, to nearest even.

    Parameters
    ----------
    sums : float64 [M * L, N]
        Exact multiples of 2**-24 below 2**29 in magnitude; no -0.
    limbs : int
        L.
    exponent : int
    target : FloatFormat

    Returns
    -------
    target.dtype [M, N]
    """
    if limbs == 1:
        # One number, exactly: converting it is the one rounding.
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray((sums * 2.0**exponent).astype(target.dtype))
    by_token = sums.reshape(-1, limbs, sums.shape[1])
    result = np.empty((len(by_token), sums.shape[1]), target.dtype)
    if target.dtype is np.float32:
        open_ones = np.empty(result.shape, np.bool_)
        if not _join(by_token, 2.0**exponent, result, open_ones):
            return result
    else:
        open_ones = np.ones(result.shape, np.bool_)
    terms = np.ldexp(by_token.swapaxes(0, 1)[:, open_ones], FP16_FRACTION_BITS).astype(np.int64)
    places = np.arange(limbs) * 8
    result[open_ones] = round_terms(terms, places, exponent - FP16_FRACTION_BITS, target)
    return result


@jit
def _join(
    sums: NDArray[np.float64],
    unit: float,
    result: NDArray[np.float32],
    open_ones: NDArray[np.bool_],
) -> int:
    """Set the results that float64 pairs decide, mark the others, and return how many.

    A sum and its error (Knuth's TwoSum) are the exact value but for the rounding of the errors'
    own sum. Where the sum is no smaller than 2**-20 of its largest term that is below 2**-70 of
    it, so rounding to binary32 is decided unless the sum lies next to a tie: then its lower 29 bits
    are about half of their range.
    """
    count = 0
    tokens, limbs, n = sums.shape
    total, error, largest = np.empty(n), np.empty(n), np.empty(n)
    bits = total.view(np.int64)
    for m in range(tokens):
        total[:] = 0.0
        error[:] = 0.0
        largest[:] = 0.0
        place = unit
        for limb in range(limbs):
            terms = sums[m, limb]
            for i in range(n):
                term = terms[i] * place
                largest[i] = max(largest[i], abs(term))
                joined = total[i] + term
                part = joined - total[i]
                error[i] += (total[i] - (joined - part)) + (term - part)
                total[i] = joined
            place *= 256.0
        for i in range(n):
            total[i] += error[i]
            low = bits[i] & ((1 << 29) - 1)
            unsure = (abs(low - (1 << 28)) <= 16) | (abs(total[i]) < largest[i] * 2.0**-20)
            open_ones[m, i] = unsure & (largest[i] > 0.0)
            count += open_ones[m, i]
            result[m, i] = np.float32(total[i])
    return count
