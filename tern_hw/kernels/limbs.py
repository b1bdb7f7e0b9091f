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
        ties = np.empty(result.shape, np.bool_)
        if not _join(by_token, 2.0**exponent, result, ties):
            return result
    else:
        ties = np.ones(result.shape, np.bool_)
    terms = np.ldexp(by_token.swapaxes(0, 1)[:, ties], FP16_FRACTION_BITS).astype(np.int64)
    places = np.arange(limbs) * 8
    result[ties] = round_terms(terms, places, exponent - FP16_FRACTION_BITS, target)
    return result


@jit
def _join(
    sums: NDArray[np.float64],
    unit: float,
    result: NDArray[np.float32],
    ties: NDArray[np.bool_],
) -> int:
    """Set the results that float64 decides, mark the others, and return how many.

    Each addition's error is exact (Knuth's TwoSum), and so is their sum: multiples of the least
    unit below 2**53 of them. So the total is the exact value rounded to float64, and rounding that
    to float32 errs only where it is a tie of float32: half of what its lower 29 bits hold.
    """
    count = 0
    tokens, limbs, n = sums.shape
    total, error = np.empty(n), np.empty(n)
    bits = total.view(np.int64)
    for m in range(tokens):
        total[:] = 0.0
        error[:] = 0.0
        place = unit
        for limb in range(limbs):
            terms = sums[m, limb]
            for i in range(n):
                term = terms[i] * place
                joined = total[i] + term
                part = joined - total[i]
                error[i] += (total[i] - (joined - part)) + (term - part)
                total[i] = joined
            place *= 256.0
        for i in range(n):
            total[i] += error[i]
            tie = bits[i] & ((1 << 29) - 1) == 1 << 28
            ties[m, i] = tie
            count += tie
            result[m, i] = np.float32(total[i])
    return count
