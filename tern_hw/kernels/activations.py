"""Activations as the kernels read them: quantised, or cut into 8-bit limbs, four to a word."""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import carray
from numpy.typing import NDArray

from tern_hw import reference
from tern_hw.config import FP16_FRACTION_BITS
from tern_hw.kernels import job
from tern_hw.kernels.atomics import call_job, pointer
from tern_hw.kernels.emit import BLOCK_ROWS
from tern_hw.kernels.layout import INTEGER_LIMIT, KernelMatrix
from tern_hw.reference.jit import jit

__all__ = [
    "WIDTHS",
    "Job",
    "all_finite",
    "limbs_of",
    "prepare_job",
    "quantize_tokens",
    "small_product",
]

#: Columns that one pass computes side by side.
WIDTHS: Final = (1, 2, 4, 8)
#: Largest magnitude of a quantized activation.
INT8_LIMIT: Final = 127
#: The least scale of a token: where max|x| / 127 underflows.
LEAST_SCALE: Final = np.finfo(np.float32).smallest_subnormal


class Job(NamedTuple):
    """What a kernel is called with."""

    #: int64 [job.NUMBERS].
    numbers: NDArray[np.int64]
    #: What the numbers point at, besides the matrix and the result: it must live as long.
    memory: NDArray[np.uint8]
    #: False where a sum of integer scales might not fit: the kernel must not run.
    fits: bool


@jit
def _run(largest: np.int64, scale_limit: int, groups: int) -> int:
    """Return how many groups, an even number, a sum of 32 bits holds; 0: not even two.

    |A * S + B * X| <= (|A| + |B|) * sum|x|, and |rest * X| of two groups likewise; S and X
    themselves must fit 16 bits.
    """
    if largest > INTEGER_LIMIT:
        return 0
    most = np.int64((1 << 31) - 1) // max(scale_limit * largest, np.int64(1))
    return int(min(int(most), groups + 1)) // 2 * 2


def prepare_job(
    limbs: NDArray[np.int8], matrix: KernelMatrix, width: int, result: NDArray[Any]
) -> Job:
    """Place columns of limbs in the order of a matrix's stream.

    Parameters
    ----------
    limbs : int8 [C, K]
    matrix : KernelMatrix
        With a stream.
    width : int
        Columns side by side.
    result : float32 or float64 [batches * width, 32 * P]
        Takes the sums; rows beyond C those of columns of 0.
    """
    memory = np.empty(int(matrix.numbers[job.COLUMN_BYTES]) * len(result), np.uint8)
    numbers = np.empty(job.NUMBERS, np.int64)
    single = result.itemsize == 4
    fits = _prepare(limbs, matrix.numbers, width, memory, result.view(np.uint8), single, numbers)
    return Job(numbers, memory, fits)


@jit
def _prepare(
    limbs: NDArray[np.int8],
    matrix: NDArray[np.int64],
    width: int,
    memory: NDArray[np.uint8],
    result: NDArray[np.uint8],
    single: bool,
    numbers: NDArray[np.int64],
) -> bool:
    """Fill memory and a job's numbers from its matrix's; return whether its sums fit."""
    columns, k = limbs.shape
    groups, group_inputs, fields = matrix[job.GROUPS], matrix[job.GROUP_INPUTS], matrix[job.FIELDS]
    starts = carray(pointer(matrix[job.STARTS]), (groups + 1,), np.int64)
    count = result.shape[0]
    batches = count // width
    memory[:] = 0
    places = starts[groups] * fields * count
    inputs = memory[: 4 * places].view(np.int8)
    words = memory[: 4 * places].view(np.int32)
    totals = memory[4 * places : 4 * (places + 2 * groups * count)].view(np.int32)
    pair_count = (groups + 1) // 2
    rest = memory[4 * (places + 2 * groups * count) :]
    pairs = rest[: 4 * pair_count * count].view(np.int16)
    active = rest[4 * pair_count * count :].view(np.int32)
    largest = np.int64(0)
    for c in range(columns):
        b = c // width
        column = c - b * width
        for g in range(groups):
            first = g * group_inputs
            group = limbs[c, first : min(first + group_inputs, k)]
            total, size = np.int32(0), np.int32(0)
            for i in range(len(group)):
                x = np.int32(group[i])
                total += x
                size += abs(x)
            totals[2 * ((g * batches + b) * width + column)] = -total
            # In 16 bits: where it does not fit, no kernel reads it.
            totals[2 * ((g * batches + b) * width + column) + 1] = total << 16
            pairs[2 * ((b * pair_count + g // 2) * width + column) + g % 2] = total
            active[g * batches + b] |= np.int32(size > 0) << column
            largest = max(largest, np.int64(size))
            # Words of this group before this batch's, and this column's place among its own.
            steps = starts[g + 1] - starts[g]
            word = (starts[g] * batches + b * steps) * fields * width + column
            whole = len(group) // 4
            fours = group[: 4 * whole].view(np.int32)
            for i in range(whole):
                words[word + i * width] = fours[i]
            for i in range(4 * whole, len(group)):
                inputs[4 * (word + whole * width) + i - 4 * whole] = group[i]
    numbers[:] = matrix
    numbers[job.WORDS] = words.ctypes.data
    numbers[job.TOTALS] = totals.ctypes.data
    numbers[job.PAIRS] = pairs.ctypes.data
    numbers[job.ACTIVE] = active.ctypes.data
    numbers[job.OUT] = result.ctypes.data
    numbers[job.BATCHES] = batches
    numbers[job.SINGLE] = single
    numbers[job.RUN] = _run(largest, matrix[job.SCALE_LIMIT], groups)
    return matrix[job.UNITS] == 0 or numbers[job.RUN] > 0


def limbs_of(activations: NDArray[Any]) -> tuple[NDArray[np.int8], int, int]:
    """Cut activations into balanced 8-bit limbs: x = sum_l limb[l] * 2**(8 * l + exponent).

    Parameters
    ----------
    activations : int8 or float16 [M, K]
        Finite.

    Returns
    -------
    limbs : int8 [M * L, K]
        A token's limbs in turn, least significant first.
    count : int
        L: 1 of int8 activations, at most 6 of fp16 ones.
    exponent : int
    """
    if activations.dtype == np.int8:
        return activations, 1, 0
    bits = activations.view(np.uint16)
    units: NDArray[np.int64] = np.empty(bits.shape, np.int64)
    used = int(_units(bits, units))
    # Zeros common to all at the low end cost a limb for nothing.
    spare = max((used & -used).bit_length() - 1, 0)
    count, left = _limb_count(units, spare)
    limbs: NDArray[np.int8] = np.empty((len(units), count, units.shape[1]), np.int8)
    _cut(units, spare, left, limbs)
    return limbs.reshape(-1, units.shape[1]), count, spare - left - FP16_FRACTION_BITS


@jit
def all_finite(bits: NDArray[np.uint16]) -> bool:
    """Whether binary16 values [M, K], given by their bits, are all finite."""
    found = np.uint16(0)
    for m in range(bits.shape[0]):
        for k in range(bits.shape[1]):
            found |= np.uint16((bits[m, k] & 0x7C00) + 0x0400) & np.uint16(0x8000)
    return found == 0


@jit
def _units(bits: NDArray[np.uint16], units: NDArray[np.int64]) -> np.int64:
    """Set units to finite binary16 values in units of 2**-24; return the bits that any uses."""
    used = np.int64(0)
    for m in range(bits.shape[0]):
        for k in range(bits.shape[1]):
            code = np.int64(bits[m, k])
            exponent = (code >> 10) & 31
            normal = np.int64(exponent > 0)
            value = (code & 1023 | normal << 10) << (exponent - normal)
            used |= value
            units[m, k] = -value if code >> 15 else value
    return used


@jit
def _limb_count(units: NDArray[np.int64], spare: int) -> tuple[int, int]:
    """Return how many balanced limbs hold every unit >> spare, and how far left they may move.

    Bits that the highest limb has left are of more use to the lowest: with them only small
    activations reach into it, and groups without any need one limb less.
    """
    low, high = np.int64(0), np.int64(0)
    for m in range(units.shape[0]):
        for k in range(units.shape[1]):
            low = min(low, units[m, k])
            high = max(high, units[m, k])
    low, high = low >> spare, high >> spare
    count = 1
    # Limbs from -128 to 127: n of them reach from -128 to 127 times (256**n - 1) / 255.
    ones = 1
    while low < -128 * ones or high > 127 * ones:
        ones = 256 * ones + 1
        count += 1
    left = 0
    while low << (left + 1) >= -128 * ones and high << (left + 1) <= 127 * ones and left < 7:
        left += 1
    return count, left if count > 1 else 0


@jit
def _cut(units: NDArray[np.int64], spare: int, left: int, limbs: NDArray[np.int8]) -> None:
    """Set the limbs of every unit >> spare << left."""
    rest = np.empty(units.shape[1], np.int64)
    for m in range(units.shape[0]):
        for k in range(len(rest)):
            rest[k] = units[m, k] >> spare << left
        for limb in range(limbs.shape[1]):
            cut = limbs[m, limb]
            for k in range(len(rest)):
                part = ((rest[k] + 128) & 255) - 128
                cut[k] = part
                rest[k] = (rest[k] - part) >> 8


# ------------------------------------------------------------------ float32 tokens through int8


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
    return reference.quantize_tokens(x)  # what it refuses it has a sentence for


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


def small_product(
    x: NDArray[Any], matrix: KernelMatrix, width: int, kernel: int, result: NDArray[np.float32]
) -> bool:
    """Compute the product of a few tokens in one call of compiled code, on one thread.

    Parameters
    ----------
    x : int8 or float32 [M, K], C-contiguous
        int8: as `reference.matmul`; float32: as `reference.matmul_quantized`.
    matrix : KernelMatrix [N, K]
        With a stream.
    width : int
        Columns side by side.
    kernel : int
        Address of the kernel for that width.
    result : float32 [batches * width, 32 * P]
        Takes the products; rows beyond M those of columns of 0.

    Returns
    -------
    bool
        False where x is not finite, or a sum might not fit 32 bits: the result is not set.
    """
    product = _int8_product if x.dtype == np.int8 else _quantized_product
    return bool(product(x, matrix.numbers, width, kernel, result))


@jit
def _int8_product(
    x: NDArray[np.int8],
    matrix: NDArray[np.int64],
    width: int,
    kernel: int,
    result: NDArray[np.float32],
) -> bool:
    """Do the whole job of int8 tokens; return whether its sums fit."""
    memory = np.empty(matrix[job.COLUMN_BYTES] * len(result), np.uint8)
    numbers = np.empty(job.NUMBERS, np.int64)
    if not _prepare(x, matrix, width, memory, result.view(np.uint8), True, numbers):
        return False
    call_job(kernel, numbers.ctypes.data, 0, numbers[job.ROW] // BLOCK_ROWS)
    # The job knows these arrays by address alone: named here, they live until it is done.
    return len(memory) > 0 and len(numbers) > 0


@jit
def _quantized_product(
    x: NDArray[np.float32],
    matrix: NDArray[np.int64],
    width: int,
    kernel: int,
    result: NDArray[np.float32],
) -> bool:
    """Do the whole job of float32 tokens; return whether they are finite, and its sums fit."""
    quantized = np.empty(x.shape, np.int8)
    scale = np.empty(len(x), np.float32)
    if not _quantize(x, quantized, scale):
        return False
    if not _int8_product(quantized, matrix, width, kernel, result):
        return False
    for m in range(len(x)):
        for n in range(result.shape[1]):
            result[m, n] *= scale[m]
    return True
