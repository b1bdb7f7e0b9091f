"""Aligned activations: each rounded to a unit that its group has, as the cheaper hardware does."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.config import ALIGNED_BITS, FP16_FRACTION_BITS
from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize
from tern_hw.reference.jit import jit

__all__ = ["align"]

#: Bits of a binary16 significand.
SIGNIFICAND_BITS: Final = 11


def align(activations: NDArray[Any], group_size: GroupSize, bits: int) -> NDArray[np.float16]:
    """Round activations to the unit of their group.

    Parameters
    ----------
    activations : float16 [M, K]
        Finite.
    group_size : int or "row"
        Inputs that share a unit: those that share a scale.
    bits : int
        W, the width of the integers, two's complement: 8 to 40.

    Returns
    -------
    float16 [M, K]
        What aligned(W) computes with: every such integer times its unit is a binary16 again.

    Raises
    ------
    TernError
        If the activations are not float16, or W is out of range.

    Notes
    -----
    With e the largest binary exponent of a group's activations (at least -14, that of subnormals
    and zeros), its unit is 2**max(e + 2 - W, -24). An activation x becomes the integer
    q = sign(x) * min(floor(abs(x) / unit + 1/2), 2**(W - 1) - 1): to nearest, ties away from zero.
    The minimum matters for W < 12 alone. From 12 on, activations of at least 2**(e + 12 - W) stay
    as they are. Sums of trit * q and of q are exact, as all that follows: aligned(W) is the exact
    product of what this returns, whatever the lanes.

    As max_i of x's exponent field, at least 1, is e + 15, that field alone decides.
    """
    low, high = ALIGNED_BITS
    if isinstance(bits, bool) or not isinstance(bits, int) or not low <= bits <= high:
        raise TernError(f"aligned must be an integer from {low} to {high}, not {bits!r}")
    if activations.dtype != np.float16:
        raise TernError(f"activations must be float16 where aligned, not {activations.dtype}")
    size = activations.shape[1] if group_size == "row" else group_size
    result = np.empty(activations.shape, np.int64)
    units = np.ldexp(activations.astype(np.float64), FP16_FRACTION_BITS).astype(np.int64)
    _align(units, size, bits, result)
    return np.ldexp(result.astype(np.float64), -FP16_FRACTION_BITS).astype(np.float16)


@jit
def _align(units: Any, size: int, bits: int, result: Any) -> None:
    """Write units of 2**-24 [M, K], rounded to those of their groups of `size` inputs."""
    largest = (1 << (bits - 1)) - 1
    for m in range(units.shape[0]):
        for first in range(0, units.shape[1], size):
            last = min(first + size, units.shape[1])
            # The bits of a significand are 11 from the largest exponent's place down.
            top = SIGNIFICAND_BITS
            for k in range(first, last):
                magnitude = abs(int(units[m, k]))
                while magnitude >> top:
                    top += 1
            drop = max(top + 1 - bits, 0)
            half = (1 << drop) >> 1
            for k in range(first, last):
                value = int(units[m, k])
                count = min((abs(value) + half) >> drop, largest) << drop
                result[m, k] = -count if value < 0 else count
