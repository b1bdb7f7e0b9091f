"""`matmul`: the arithmetic contract, exact with one rounding, behind checked arguments."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.config import OutputFormat
from tern_hw.errors import TernError
from tern_hw.matrix import TernaryMatrix
from tern_hw.reference.activations import LIMB_BITS, Columns, columns
from tern_hw.reference.aligned import align
from tern_hw.reference.kernels import row_sums
from tern_hw.reference.layout import HALF_BITS, WORD_DIGITS, PreparedMatrix, prepare
from tern_hw.reference.rounding import FORMATS, FloatFormat, round_terms
from tern_hw.reference.threads import over_blocks

__all__ = ["check_activations", "check_finite", "matmul", "output_format"]

#: Tokens computed at a time: bounds the memory of the exact sums.
TOKENS_AT_A_TIME: Final = 16
#: The unit of a scale and of a shift is 2**this.
SCALE_EXPONENT: Final = -24


def matmul(
    activations: NDArray[Any],
    matrix: TernaryMatrix,
    *,
    output: str = "fp32",
    aligned: int | None = None,
) -> NDArray[Any]:
    """Multiply activations by a ternary matrix: the exact sum, rounded once.

    Parameters
    ----------
    activations : int8 or float16 [M, K] or [K]
        Finite; -128 is legal.
    matrix : TernaryMatrix [N, K]
        Its repacked form (`prepare`) is made at the first call and kept while the matrix lives.
    output : str
        "fp32" or "fp16".
    aligned : int, optional
        W from 8 to 40: float16 activations are first rounded as `aligned.align` says.

    Returns
    -------
    float32 or float16 [M, N] or [N]

    Raises
    ------
    TernError
        If a shape, dtype or W does not fit, or an activation is not finite (its index is named).

    Notes
    -----
    out[m, n] = round(sum_g scale[n, g] * S[m, n, g] + shift[n, g] * X[m, g]) with S the sum of
    trit * x and X the sum of x over group g. To nearest, ties to even; an exact zero is +0, a
    negative value that rounds to zero -0, overflow infinity. No sum is beyond
    2**(41 + 40 + 22) units of 2**-48 (|scale| + |shift|, |x|, MAX_IN_FEATURES); how it is held:
    `layout.prepare`, `rounding.round_terms`.
    """
    target = output_format(output)
    tokens = check_activations(activations, matrix.in_features)
    if activations.dtype == np.float16:
        check_finite(activations)
    if aligned is not None:
        tokens = align(tokens, matrix.group_size, aligned)
    prepared = prepare(matrix)
    result = np.empty((len(tokens), matrix.out_features), target.dtype)
    for start in range(0, len(tokens), TOKENS_AT_A_TIME):
        some = tokens[start : start + TOKENS_AT_A_TIME]
        result[start : start + len(some)] = _product(columns(some, prepared), prepared, target)
    return result[0] if activations.ndim == 1 else result


def check_activations(activations: Any, k: int) -> NDArray[Any]:
    """Return activations as [M, K]; refuse another dtype or shape."""
    wanted = f"int8 or float16 of shape [M, {k}] or [{k}]"
    if not isinstance(activations, np.ndarray):
        raise TernError(f"activations must be {wanted}, not {type(activations).__name__}")
    fits = activations.ndim in (1, 2) and activations.shape[-1] == k
    if activations.dtype not in (np.int8, np.float16) or not fits:
        raise TernError(
            f"activations must be {wanted}, not {activations.dtype} {list(activations.shape)}"
        )
    return activations.reshape(-1, k)


def output_format(output: str) -> FloatFormat:
    """Return the format of that name."""
    try:
        return FORMATS[OutputFormat(output)]
    except ValueError:
        choices = ", ".join(OutputFormat)
        raise TernError(f"output must be one of {choices}, not {output!r}") from None


def check_finite(activations: NDArray[Any]) -> None:
    """Refuse the first activation that is not finite."""
    wrong = ~np.isfinite(activations)
    if wrong.any():
        index = np.argwhere(wrong)[0]
        place = ", ".join(map(str, index))
        raise TernError(f"activations must be finite, not {activations[tuple(index)]} at [{place}]")


def _product(tokens: Columns, matrix: PreparedMatrix, target: FloatFormat) -> NDArray[Any]:
    """Return the rounded outputs [M, N]."""
    blocks, halves, _, rows = matrix.scale.shape
    sums = np.empty((blocks, len(tokens.sums), halves, rows), np.int64)

    def work(first: int, last: int) -> None:
        # The kernel's 16-bit wrap-around is meant; without the JIT numpy would warn of it.
        with np.errstate(over="ignore"):
            row_sums(
                matrix.words[first:last],
                matrix.scale[first:last],
                matrix.shift[first:last],
                matrix.starts,
                tokens.telescoped,
                tokens.sums,
                sums[first:last],
            )

    over_blocks(blocks, matrix.words.size * WORD_DIGITS * len(tokens.sums), work)
    n, _ = matrix.shape
    by_column = np.moveaxis(sums, 0, 2).reshape(-1, tokens.limbs * halves, blocks * rows)
    by_token = by_column[..., :n]
    places = _places(tokens.limbs, halves)
    order = np.argsort(places, kind="stable")
    terms = by_token.swapaxes(0, 1)[order].reshape(len(order), -1)
    rounded = round_terms(terms, places[order], tokens.exponent + SCALE_EXPONENT, target)
    return rounded.reshape(-1, n)


def _places(limbs: int, halves: int) -> NDArray[np.int64]:
    """Return the binary place of each (limb, half)."""
    limb = np.arange(limbs)[:, None] * LIMB_BITS
    return (limb + np.arange(halves) * HALF_BITS).reshape(-1)
