"""int8 software path: quantize each token once, multiply exactly, scale back."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.errors import TernError
from tern_hw.matrix import TernaryMatrix
from tern_hw.reference.product import matmul

__all__ = ["matmul_quantized", "quantize_tokens"]

#: Largest magnitude of a quantized activation.
INT8_LIMIT: Final = 127


def quantize_tokens(x: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize each token to int8 with one scale.

    Parameters
    ----------
    x : float32 [M, K] or [K]
        Finite.

    Returns
    -------
    q : int8 [M, K] or [K]
        round(x / s), ties to even, clamped to +-127.
    s : float32 [M] or scalar array
        fl32(max|x| / 127); 1 for a zero token.

    Raises
    ------
    TernError
        If x is not float32 of that shape, or not finite (the index is named).

    Notes
    -----
    x / s is rounded to the integer as if exact: float64 holds the quotient of two float32 so
    finely that a tie and a near tie stay apart. Where max|x| / 127 underflows, s is the least
    subnormal.
    """
    _check(x)
    largest = np.abs(x).max(axis=-1)
    scale = np.maximum(largest / np.float32(INT8_LIMIT), np.finfo(np.float32).smallest_subnormal)
    scale = np.where(largest == 0, np.float32(1), scale).astype(np.float32)
    quotient = x.astype(np.float64) / scale[..., None]
    return np.rint(quotient).clip(-INT8_LIMIT, INT8_LIMIT).astype(np.int8), scale


def matmul_quantized(x: NDArray[np.float32], matrix: TernaryMatrix) -> NDArray[np.float32]:
    """Multiply float32 tokens by a ternary matrix through int8 activations.

    Parameters
    ----------
    x : float32 [M, K] or [K]
    matrix : TernaryMatrix [N, K]

    Returns
    -------
    float32 [M, N] or [N]
        matmul(q, matrix) * s: one rounding of the exact sum, a second of the product.

    Raises
    ------
    TernError
        As `quantize_tokens` and `matmul`.
    """
    quantized, scale = quantize_tokens(x)
    with np.errstate(over="ignore", under="ignore"):
        return matmul(quantized, matrix) * scale[..., None]


def _check(x: Any) -> None:
    if not isinstance(x, np.ndarray) or x.dtype != np.float32 or x.ndim not in (1, 2):
        found = f"{x.dtype} {list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
        raise TernError(f"activations must be float32 of shape [M, K] or [K], not {found}")
    if x.shape[-1] == 0:
        raise TernError(f"activations must have one input or more, not shape {list(x.shape)}")
    wrong = ~np.isfinite(x)
    if wrong.any():
        index = np.argwhere(wrong)[0]
        place = ", ".join(map(str, index))
        raise TernError(f"activations must be finite, not {x[tuple(index)]} at [{place}]")
