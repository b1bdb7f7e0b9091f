"""`matmul` at the speed of the machine: the contract's bits, from whichever kernel there is."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.errors import TernError
from tern_hw.kernels.columns import WIDTHS, limbs_of, prepare_job
from tern_hw.kernels.emit import BLOCK_ROWS
from tern_hw.kernels.layout import INTEGER_LIMIT, KernelMatrix
from tern_hw.kernels.limbs import join
from tern_hw.kernels.loops import RUN, row_sums_of
from tern_hw.kernels.team import processors, run_job
from tern_hw.kernels.tokens import quantize_tokens
from tern_hw.reference import matmul as reference_matmul
from tern_hw.reference.product import check_activations, check_finite, output_format

__all__ = ["matmul", "matmul_quantized"]

#: Columns computed at a time: their words, and their sums of a block, stay in the nearer caches.
COLUMNS_AT_A_TIME: Final = 32
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
    tokens = check_activations(activations, matrix.shape[1])
    if activations.dtype == np.float16:
        check_finite(activations)
    most = _thread_count(threads)
    if matrix.stream is None:
        return reference_matmul(activations, matrix.matrix(), output=output)
    limbs, count, exponent = limbs_of(np.ascontiguousarray(tokens))
    # One limb is the number itself: the kernel's conversion to float32 is then the one rounding.
    single = count == 1 and exponent == 0 and target.dtype is np.float32
    width = next((each for each in WIDTHS if each >= len(limbs)), WIDTHS[-1])
    step = max(1, COLUMNS_AT_A_TIME // count)
    n, rows = matrix.shape[0], len(matrix.stream) * BLOCK_ROWS
    padded = -(-len(tokens) // width) * width if single else len(tokens)
    result = np.empty((padded, rows if single else n), target.dtype)
    for start in range(0, len(tokens), step):
        some = limbs[start * count : (start + step) * count]
        taken = result[start : start + step]
        columns = -(-len(some) // width) * width
        sums = taken if single else np.empty((columns, rows), np.float64)
        if not _fill(_Product(matrix, width, most), some, sums):
            taken = taken[: len(some) // count, :n]
            taken[:] = reference_matmul(
                tokens[start : start + len(taken)], matrix.matrix(), output=output
            )
        elif not single:
            taken[:] = join(sums[: len(some), :n], count, exponent, target)
    if result.shape != (len(tokens), n):
        result = result[: len(tokens), :n].copy()
    return result[0] if activations.ndim == 1 else result


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
    quantized, scale = quantize_tokens(x)
    with np.errstate(over="ignore", under="ignore"):
        return matmul(quantized, matrix, threads=threads) * scale[..., None]


@dataclass(frozen=True, eq=False)
class _Product:
    """A matrix, and how its products are computed."""

    matrix: KernelMatrix
    #: Columns side by side.
    width: int
    threads: int


def _fill(product: _Product, limbs: NDArray[np.int8], sums: NDArray[Any]) -> bool:
    """Set sums to those of limbs, int8 [C, K]; False where one might not fit 32 bits."""
    matrix = product.matrix
    assert matrix.stream is not None
    job = prepare_job(limbs, matrix, product.width, sums)
    integers = matrix.units is not None
    if integers:
        run = _run(job.largest, matrix)
        if run == 0:
            return False
        job.numbers[RUN] = run
    kernel = row_sums_of(matrix.instructions, matrix.packing, product.width, integers=integers)
    worth = matrix.shape[0] * matrix.shape[1] * len(limbs) // PRODUCTS_PER_THREAD
    run_job(kernel, job.numbers, len(matrix.stream), min(product.threads, worth))
    return True


def _run(largest: int, matrix: KernelMatrix) -> int:
    """Return how many groups, an even number, a sum of 32 bits holds; 0: not even two.

    |A * S + B * X| <= (|A| + |B|) * sum|x|, and |rest * X| of two groups likewise.
    """
    if largest > INTEGER_LIMIT:
        return 0
    most = (1 << 31) - 1
    group = matrix.scale_limit * largest
    groups = len(matrix.starts)
    return min(most // max(group, 1), groups + groups % 2) // 2 * 2


def _thread_count(threads: int | None) -> int:
    if threads is None:
        return processors()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise TernError(f"threads must be a positive integer, not {threads!r}")
    return threads
