"""`matmul` at the speed of the machine: the contract's bits, from whichever kernel there is."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.errors import TernError
from tern_hw.kernels.activations import (
    WIDTHS,
    all_finite,
    limbs_of,
    prepare_job,
    quantize_tokens,
    small_product,
)
from tern_hw.kernels.emit import BLOCK_ROWS
from tern_hw.kernels.layout import KernelMatrix
from tern_hw.kernels.limbs import join
from tern_hw.kernels.loops import row_sums_of
from tern_hw.kernels.team import processors, run_job
from tern_hw.reference import matmul as reference_matmul
from tern_hw.reference.product import check_activations, check_finite, output_format
from tern_hw.reference.rounding import FORMATS, FloatFormat

__all__ = ["matmul", "matmul_quantized"]

#: Columns computed at a time: their words, and their sums of a block, stay in the nearer caches ...
COLUMNS_AT_A_TIME: Final = 16
#: ... and twice as many of a matrix of more bytes than this, which each time comes from far.
NEAR_BYTES: Final = 8 << 20
#: Names of the output formats, by their types.
NAMES: Final = {FORMATS[name].dtype: str(name) for name in FORMATS}
#: Digit products that are worth a thread: about 25 us of work.
PRODUCTS_PER_THREAD: Final = 1 << 22


def matmul(
    activations: NDArray[Any],
    matrix: KernelMatrix,
    *,
    output: str = "fp32",
    threads: int | None = None,
) -> NDArray[Any]:
    """Multiply activations by a repacked ternary matrix: `reference.matmul`, bit for bit.

    Parameters
    ----------
    activations : int8 or float16 [M, K] or [K]
        Finite; -128 is legal.
    matrix : KernelMatrix [N, K]
    output : str
        "fp32" or "fp16".
    threads : int, optional
        At most so many; None: as many as there are processors. Fewer where the work is too small.

    Returns
    -------
    float32 or float16 [M, N] or [N]

    Raises
    ------
    TernError
        If a shape or dtype does not fit, or an activation is not finite (its index is named).

    Notes
    -----
    A row's sum of scale * S + shift * X is a multiple of 2**-24 for int8 activations and for each
    8-bit limb of fp16 ones; below 2**29 (`layout.is_exact`) a float64 holds it and all its parts
    exactly, in any order. Limbs are joined and rounded once.
    """
    target = output_format(output)
    tokens = np.ascontiguousarray(check_activations(activations, matrix.shape[1]))
    most = _thread_count(threads)
    if target.dtype is np.float32 and _is_small(tokens, np.int8, matrix):
        small = _small(tokens, matrix, most)
        if small is not None:
            return small[0] if activations.ndim == 1 else small
    if tokens.dtype == np.float16 and not all_finite(tokens.view(np.uint16)):
        check_finite(activations)
    if matrix.stream is None:
        return reference_matmul(activations, matrix.matrix(), output=output)
    result = _in_turns(tokens, matrix, target, most)
    return result[0] if activations.ndim == 1 else result


def _in_turns(
    tokens: NDArray[Any], matrix: KernelMatrix, target: FloatFormat, threads: int
) -> NDArray[Any]:
    """Return the outputs [M, N] of tokens, a few of them at a time."""
    assert matrix.stream is not None
    limbs, count, exponent = limbs_of(tokens)
    # One limb is the number itself: the kernel's conversion to float32 is then the one rounding.
    single = count == 1 and exponent == 0 and target.dtype is np.float32
    width = _width(len(limbs))
    near = matrix.stream.nbytes <= NEAR_BYTES
    step = max(1, COLUMNS_AT_A_TIME * (1 if near else 2) // count)
    n, rows = matrix.shape[0], len(matrix.stream) * BLOCK_ROWS
    padded = -(-len(tokens) // width) * width if single else len(tokens)
    result = np.empty((padded, rows if single else n), target.dtype)
    for start in range(0, len(tokens), step):
        some = limbs[start * count : (start + step) * count]
        taken = result[start : start + step]
        columns = -(-len(some) // width) * width
        sums = taken if single else np.empty((columns, rows), np.float64)
        if not _fill(some, matrix, width, sums, threads):
            taken = taken[: len(some) // count, :n]
            taken[:] = reference_matmul(
                tokens[start : start + len(taken)], matrix.matrix(), output=NAMES[target.dtype]
            )
        elif not single:
            taken[:] = join(sums[: len(some), :n], count, exponent, target)
    return result if result.shape == (len(tokens), n) else result[: len(tokens), :n].copy()


def matmul_quantized(
    x: NDArray[np.float32], matrix: KernelMatrix, *, threads: int | None = None
) -> NDArray[np.float32]:
    """Multiply float32 tokens through int8 activations: `reference.matmul_quantized`.

    Parameters
    ----------
    x : float32 [M, K] or [K]
    matrix : KernelMatrix [N, K]
    threads : int, optional
        As in `matmul`.

    Returns
    -------
    float32 [M, N] or [N]

    Raises
    ------
    TernError
        As `quantize_tokens` and `matmul`.
    """
    most = _thread_count(threads)
    if _is_small(x, np.float32, matrix) and min(most, _worth(matrix, len(x))) <= 1:
        result = _small(x, matrix, 1)
        if result is not None:
            return result
    quantized, scale = quantize_tokens(x)
    with np.errstate(over="ignore", under="ignore"):
        return matmul(quantized, matrix, threads=threads) * scale[..., None]


def _is_small(x: Any, dtype: type, matrix: KernelMatrix) -> bool:
    """Whether x is a few tokens as they should be, whose columns one pass computes."""
    return (
        isinstance(x, np.ndarray)
        and x.dtype == dtype
        and x.ndim == 2
        and 1 <= len(x) <= WIDTHS[-1]
        and x.shape[1] == matrix.shape[1]
        and x.flags.c_contiguous
        and matrix.stream is not None
    )


def _small(x: NDArray[Any], matrix: KernelMatrix, threads: int) -> NDArray[np.float32] | None:
    """Return the product of a few tokens; None where x is not finite, or a sum might not fit.

    On one thread all of it is one call of compiled code; several take int8 tokens.
    """
    assert matrix.stream is not None
    width = _width(len(x))
    result = np.empty((-(-len(x) // width) * width, len(matrix.stream) * BLOCK_ROWS), np.float32)
    if min(threads, _worth(matrix, len(x))) <= 1:
        done = small_product(x, matrix, width, _kernel(matrix, width), result)
    else:
        done = _fill(x, matrix, width, result, threads)
    if not done:
        return None
    kept = len(x), matrix.shape[0]
    return result if result.shape == kept else result[: kept[0], : kept[1]]


def _fill(
    limbs: NDArray[np.int8], matrix: KernelMatrix, width: int, sums: NDArray[Any], threads: int
) -> bool:
    """Set sums to those of limbs, int8 [C, K]; False where one might not fit 32 bits."""
    assert matrix.stream is not None
    prepared = prepare_job(limbs, matrix, width, sums)
    if prepared.fits:
        threads = min(threads, _worth(matrix, len(limbs)))
        run_job(_kernel(matrix, width), prepared.numbers, len(matrix.stream), threads)
    return prepared.fits


def _width(columns: int) -> int:
    """Return how many columns lie side by side: the least width that holds so many."""
    for width in WIDTHS:
        if width >= columns:
            return width
    return WIDTHS[-1]


def _kernel(matrix: KernelMatrix, width: int) -> int:
    integers = matrix.units is not None
    return row_sums_of(matrix.instructions, matrix.packing, width, integers=integers)


def _worth(matrix: KernelMatrix, columns: int) -> int:
    """Return how many threads the work is worth."""
    return matrix.shape[0] * matrix.shape[1] * columns // PRODUCTS_PER_THREAD


def _thread_count(threads: int | None) -> int:
    if threads is None:
        return processors()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise TernError(f"threads must be a positive integer, not {threads!r}")
    return threads
