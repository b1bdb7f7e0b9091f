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
    The product of two binary16 is exact in float64. Its sum with c is rounded to odd there, which
    makes the second rounding the only one: S. Boldo, G. Melquiond, "Emulation of FMA and correctly
    rounded sums", IEEE Trans. Computers 57(4), 2008, theorem 1 (53 bits are 2 more than 24 takes).
    """
    if accumulator not in FORMATS:
        raise TernError(f"accumulator must be one of {', '.join(FORMATS)}, not {accumulator!r}")
    kind = FORMATS[accumulator]
    sums = np.empty(weight.shape, kind)
    c = np.zeros(weight.shape[:-1], kind)
    with np.errstate(over="ignore", under="ignore"):
        for k in range(weight.shape[-1]):
            product = weight[..., k].astype(np.float64) * x[..., k].astype(np.float64)
            c = _to_odd(product, c.astype(np.float64)).astype(kind)
            sums[..., k] = c
    return sums


def _to_odd(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a + b, and where that is not exact the neighbour whose last bit is 1."""
    total = a + b
    # Knuth's two-sum: what the addition lost.
    part = total - a
    lost = (a - (total - part)) + (b - part)
    even = total.view(np.int64) & 1 == 0
    nudged = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
    return np.where((lost != 0) & even, nudged, total)
