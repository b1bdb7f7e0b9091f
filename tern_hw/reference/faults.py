"""`matmul_faults`: what the hardware answers to values that software refuses."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tern_hw.config import ErrorFlag
from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize, TernaryMatrix
from tern_hw.packing import ILLEGAL_DIGIT, PAD_DIGIT
from tern_hw.reference.product import check_activations, matmul, output_format

__all__ = ["matmul_faults"]


def matmul_faults(
    activations: NDArray[Any],
    digits: NDArray[np.uint8],
    scale: NDArray[np.float16],
    shift: NDArray[np.float16],
    *,
    group_size: GroupSize,
    output: str = "fp32",
    aligned: int | None = None,
) -> tuple[NDArray[Any], ErrorFlag]:
    """Multiply as the hardware does where an operand is faulty.

    Parameters
    ----------
    activations : int8 or float16 [M, K] or [K]
    digits : uint8 [N, K] or wider
        0, 1, 2, or 3 where the code is illegal (`packing.unpack(strict=False)`). Columns from K on
        are the pad digits of a stream: they count for the flag alone.
    scale, shift : float16 [N, groups]
    group_size : int or "row"
    output : str
        "fp32" or "fp16".
    aligned : int, optional
        As in `matmul`.

    Returns
    -------
    out : float32 or float16 [M, N] or [N]
        As `matmul`; the canonical NaN (0x7FC00000, 0x7E00) in every output of a token with a
        non-finite activation and in every row with a non-finite scale or shift. An illegal digit
        counts as trit 0.
    flags : ErrorFlag
        The faults met: ACTIVATION_NONFINITE, SCALE_NONFINITE, ILLEGAL_CODE.

    Raises
    ------
    TernError
        If a shape or dtype does not fit.
    """
    target = output_format(output)
    activations = np.asarray(activations)
    k = activations.shape[-1] if activations.ndim else 0
    tokens = check_activations(activations, k)
    _check_digits(digits, k)
    _check_pairs(scale, shift)
    bad_tokens = _non_finite_rows(tokens)
    bad_rows = _non_finite_rows(np.hstack([scale, shift]))
    illegal = digits == ILLEGAL_DIGIT
    matrix = TernaryMatrix.from_digits(
        np.where(illegal, np.uint8(PAD_DIGIT), digits)[:, :k],
        np.where(bad_rows[:, None], np.float16(0), scale),
        np.where(bad_rows[:, None], np.float16(0), shift),
        group_size=group_size,
    )
    clean = np.where(bad_tokens[:, None], tokens.dtype.type(0), tokens)
    bits = matmul(clean, matrix, output=output, aligned=aligned).view(target.bits)
    bits[bad_tokens] = target.nan
    bits[:, bad_rows] = target.nan
    out = bits.view(target.dtype)
    return out[0] if activations.ndim == 1 else out, _flags(bad_tokens, bad_rows, illegal)


def _non_finite_rows(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(np.any(~np.isfinite(values), axis=1))


def _flags(
    bad_tokens: NDArray[np.bool_], bad_rows: NDArray[np.bool_], illegal: NDArray[np.bool_]
) -> ErrorFlag:
    flags = ErrorFlag(0)
    if bad_tokens.any():
        flags |= ErrorFlag.ACTIVATION_NONFINITE
    if bad_rows.any():
        flags |= ErrorFlag.SCALE_NONFINITE
    if illegal.any():
        flags |= ErrorFlag.ILLEGAL_CODE
    return flags


def _check_digits(digits: Any, k: int) -> None:
    if not isinstance(digits, np.ndarray) or digits.dtype != np.uint8 or digits.ndim != 2:
        raise TernError(f"digits must be a uint8 matrix, not {_described(digits)}")
    if digits.shape[1] < k:
        raise TernError(f"digits must have at least {k} columns, not {digits.shape[1]}")
    if (digits > ILLEGAL_DIGIT).any():
        raise TernError(f"digits must be 0 to {ILLEGAL_DIGIT}, not {digits.max()}")


def _check_pairs(scale: Any, shift: Any) -> None:
    for name, array in (("scale", scale), ("shift", shift)):
        if not isinstance(array, np.ndarray) or array.dtype != np.float16 or array.ndim != 2:
            raise TernError(f"{name} must be a float16 matrix, not {_described(array)}")
    if scale.shape != shift.shape:
        raise TernError(f"shift must have the scale's shape {scale.shape}, not {shift.shape}")


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__
