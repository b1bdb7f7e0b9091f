"""`reference.quantize_tokens` compiled: a pass for the largest, and one for the quotients."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.reference import quantize_tokens as checked_tokens
from tern_hw.reference.jit import jit

__all__ = ["quantize_tokens"]

#: Largest magnitude of a quantized activation.
INT8_LIMIT: Final = 127
#: The least scale: where max|x| / 127 underflows.
LEAST_SCALE: Final = np.finfo(np.float32).smallest_subnormal


def quantize_tokens(x: Any) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize each token to int8 with one scale, as `reference.quantize_tokens`, bit for bit.

    Parameters
    ----------
    x : float32 [M, K] or [K]
        Finite.

    Returns
    -------
    q : int8 [M, K] or [K]
    s : float32 [M] or scalar array

    Raises
    ------
    TernError
        If x is not float32 of that shape, or not finite (the index is named).
    """
    if isinstance(x, np.ndarray) and x.dtype == np.float32 and x.ndim in (1, 2) and x.size:
        tokens = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        quantized = np.empty(tokens.shape, np.int8)
        scale = np.empty(len(tokens), np.float32)
        if _quantize(tokens, quantized, scale):
            return quantized.reshape(x.shape), scale.reshape(x.shape[:-1])
    return checked_tokens(x)  # what it refuses it has a sentence for


@jit
def _quantize(
    x: NDArray[np.float32], quantized: NDArray[np.int8], scale: NDArray[np.float32]
) -> bool:
    """Fill quantized and scale; return whether all of x is finite."""
    for m in range(len(x)):
        largest, finite = np.float32(0), True
        for k in range(x.shape[1]):
            size = abs(x[m, k])
            finite &= size < np.float32(np.inf)
            largest = max(largest, size)
        if not finite:
            return False
        s = max(np.float32(largest / np.float32(INT8_LIMIT)), LEAST_SCALE)
        if largest == 0:
            s = np.float32(1)
        scale[m] = s
        divisor = np.float64(s)
        for k in range(x.shape[1]):
            q = np.rint(np.float64(x[m, k]) / divisor)
            quantized[m, k] = np.int8(min(max(q, -INT8_LIMIT), INT8_LIMIT))
    return True
