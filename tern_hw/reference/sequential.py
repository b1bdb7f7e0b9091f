"""The opponent's arithmetic: binary16 products added one after the other, each sum rounded."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tern_hw.errors import TernError
from tern_hw.reference.product import output_format

__all__ = ["matmul_rounded", "multiply_add"]


def multiply_add(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> NDArray[Any]:
    """Return a * b + c, exact and then rounded once to c's format, to nearest even.

    Parameters
    ----------
    a, b : float16
    c : float16 or float32
        Arrays of one shape, or that broadcast to one.

    Returns
    -------
    float16 or float32
        c's; every NaN is the canonical one (0x7E00, 0x7FC00000).

    Notes
    -----
    The product of two binary16 is exact in binary64. Knuth's two-sum gives the error of the sum
    exactly; where there is one, the sum's last bit is made odd. A number that was rounded to odd
    with at least two bits to spare rounds to what the exact value rounds to (Boldo and Melquiond,
    "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", IEEE
    Transactions on Computers 57(4), 2008, theorem 3).
    """
    with np.errstate(invalid="ignore", over="ignore"):
        product = a.astype(np.float64) * b.astype(np.float64)
        addend = c.astype(np.float64)
        total = product + addend
        virtual = total - product
        error = (product - (total - virtual)) + (addend - virtual)
        even = (total.view(np.uint64) & np.uint64(1)) == 0
        moved = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
        wrong = np.isfinite(total) & (error != 0) & even
        result = np.where(wrong, moved, total).astype(c.dtype)
    result[np.isnan(result)] = np.nan
    return np.asarray(np.where(np.isnan(result), np.abs(result), result))


def matmul_rounded(
    activations: NDArray[np.float16], weights: NDArray[np.float16], *, output: str = "fp32"
) -> NDArray[Any]:
    """Multiply a token by a matrix as a loop of fused multiply-adds does, input after input.

    Parameters
    ----------
    activations : float16 [K]
    weights : float16 [N, K]
    output : str
        "fp32" or "fp16": the accumulator's format, to which every sum is rounded.

    Returns
    -------
    float32 or float16 [N]
        Sums that begin with +0; NaN and infinity follow IEEE 754.

    Raises
    ------
    TernError
        If a shape or dtype does not fit.
    """
    for name, array, ndim in (("activations", activations, 1), ("weights", weights, 2)):
        if not isinstance(array, np.ndarray) or array.dtype != np.float16 or array.ndim != ndim:
            raise TernError(f"{name} must be float16 with {ndim} dimensions, not {_told(array)}")
    if weights.shape[1] != len(activations):
        raise TernError(f"weights must have {len(activations)} columns, not {weights.shape[1]}")
    sums = np.zeros(len(weights), output_format(output).dtype)
    for at, activation in enumerate(activations):
        sums = multiply_add(np.full(len(weights), activation), weights[:, at], sums)
    return sums


def _told(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__
