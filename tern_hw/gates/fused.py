"""Floating-point running sums as a fused multiply-add makes them: each step rounded once."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.errors import TernError

__all__ = ["running_sums"]

FORMATS: Final = {"fp16": np.float16, "fp32": np.float32}


def running_sums(
    weight: NDArray[np.float16], x: NDArray[np.float16], accumulator: str
) -> NDArray[np.floating]:
    """Return c_k = round(w_k * x_k + c_(k-1)) along the last axis, from c = +0.

    Parameters
    ----------
    weight, x : float16 [..., K]
        Finite.
    accumulator : str
        "fp16" or "fp32".

    Returns
    -------
    float16 or float32 [..., K]

    Notes
    -----
    Rounding to the format is the only rounding. The product of two binary16 (22 bits) is exact in
    float64, and so is its sum with c wherever bits beyond float64's 53 could matter. fp16: c is at
    least 2**-24 and a product beyond 2**28 overflows. fp32: where the sum is not exact, the smaller
    is below 2**-29 of the larger, which lies on the format's grid; so it is far from a tie.
    """
    if accumulator not in FORMATS:
        raise TernError(f"accumulator must be one of {', '.join(FORMATS)}, not {accumulator!r}")
    kind = FORMATS[accumulator]
    sums = np.empty(weight.shape, kind)
    c = np.zeros(weight.shape[:-1], kind)
    with np.errstate(over="ignore", under="ignore"):
        for k in range(weight.shape[-1]):
            product = weight[..., k].astype(np.float64) * x[..., k].astype(np.float64)
            c = (product + c.astype(np.float64)).astype(kind)
            sums[..., k] = c
    return sums
