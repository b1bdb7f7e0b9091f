"""`PreparedMatrix`: a ternary matrix as the kernels read it, lane = row."""

import weakref
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.config import FP16_FRACTION_BITS
from tern_hw.matrix import TernaryMatrix
from tern_hw.packing import PAD_DIGIT

__all__ = [
    "HALF_BITS",
    "LIMB_MAX",
    "STEP_WORDS",
    "WORD_DIGITS",
    "PreparedMatrix",
    "prepare",
]

#: Digits of one 16-bit word, two bits each, first digit lowest.
WORD_DIGITS: Final = 8
#: Words of one step of the kernel; every group is padded to whole steps.
STEP_WORDS: Final = 2
#: Most rows of a block: its words and sums stay in the first-level cache.
MAX_BLOCK_ROWS: Final = 256
#: Rows of a block are a multiple of this where they are as many: whole vectors.
VECTOR_ROWS: Final = 32

#: Largest magnitude of an activation's limb (and of an int8 activation).
LIMB_MAX: Final = 128
#: Row sums below this stay in one int64, with room for the carry of the limb below.
ONE_SUM_LIMIT: Final = 1 << 62
#: Otherwise scales and shifts are cut into a low half of this many bits and the rest.
HALF_BITS: Final = 20


@dataclass(frozen=True, eq=False)
class PreparedMatrix:
    """A `TernaryMatrix` repacked: B blocks of R rows, W words a row, H halves of a scale.

    Rows beyond N have scale and shift 0; digits that pad a group meet activations of 0.
    """

    #: N and K.
    shape: tuple[int, int]
    #: Digits, uint16 [B, W, R].
    words: NDArray[np.uint16]
    #: Scales in units of 2**-24, [B, H, groups, R]; half h counts 2**(20 * h). int32 where all
    #: scales and shifts of the matrix fit (below 128), else int64.
    scale: NDArray[np.signedinteger]
    #: Shifts, like the scales.
    shift: NDArray[np.signedinteger]
    #: First word of each group, and the end: int64 [groups + 1].
    starts: NDArray[np.int64]
    #: Place of each input in the padded row: int64 [K], or a slice where they are in a run.
    places: NDArray[np.int64] | slice

    @property
    def halves(self) -> int:
        """Parts of a scale (H): 1, or 2 where one int64 might not hold a row's sum."""
        return self.scale.shape[1]


_prepared: "weakref.WeakKeyDictionary[TernaryMatrix, PreparedMatrix]" = weakref.WeakKeyDictionary()


def prepare(matrix: TernaryMatrix) -> PreparedMatrix:
    """Return the matrix as the kernels read it; made once, kept while the matrix lives.

    Parameters
    ----------
    matrix : TernaryMatrix [N, K]

    Returns
    -------
    PreparedMatrix
        About 2 bits a weight and 8 bytes a row and group (16 for scales from 128 up), beside
        the matrix itself.

    Notes
    -----
    A row's sum is at most 128 * sum_g (|alpha| + |gamma|) * inputs(g) in units of 2**-24, for int8
    activations and for each 8-bit limb of fp16 ones alike. Below 2**62 one int64 holds it: always
    for K <= 16384, whatever the scales. Beyond, the sum is kept in two parts of 20 and 21 bits of
    scale, each below 2 * 2**20 * 128 * K <= 2**50 at MAX_IN_FEATURES.
    """
    found = _prepared.get(matrix)
    if found is None:
        found = _prepared[matrix] = _repack(matrix)
    return found


def _repack(matrix: TernaryMatrix) -> PreparedMatrix:
    n, k = matrix.shape
    inputs = np.arange(k)
    group = inputs // matrix.group_inputs
    lengths = np.bincount(group)
    step_digits = STEP_WORDS * WORD_DIGITS
    first_digit = np.concatenate(([0], np.cumsum(-(-lengths // step_digits)))) * step_digits
    places = first_digit[group] + inputs - group * matrix.group_inputs
    scale, shift = _units(matrix.scale), _units(matrix.shift)
    halves = 1 if _fits_one_sum(scale, shift, lengths) else 2
    width = np.int32 if max(np.abs(scale).max(), np.abs(shift).max()) < 1 << 31 else np.int64
    return PreparedMatrix(
        shape=(n, k),
        words=_blocks(_words(matrix.digits(), places, int(first_digit[-1]))),
        scale=_halved(_blocks(scale.astype(width)), halves),
        shift=_halved(_blocks(shift.astype(width)), halves),
        starts=first_digit // WORD_DIGITS,
        places=slice(0, k) if places[-1] == k - 1 else places,
    )


def _fits_one_sum(
    scale: NDArray[np.int64], shift: NDArray[np.int64], lengths: NDArray[np.int64]
) -> bool:
    # At most 2 * 2047 * 2**29 * MAX_IN_FEATURES < 2**63: the bound itself cannot overflow.
    weight = np.abs(scale) + np.abs(shift)
    return bool((weight @ lengths).max() < ONE_SUM_LIMIT // LIMB_MAX)


def _units(values: NDArray[np.float16]) -> NDArray[np.int64]:
    """Return finite binary16 values as integers of 2**-24, exactly."""
    return np.ldexp(values.astype(np.float64), FP16_FRACTION_BITS).astype(np.int64)


def _words(
    digits: NDArray[np.uint8], places: NDArray[np.int64], padded_digits: int
) -> NDArray[np.uint16]:
    """Return uint16 [N, W]: eight digits a word, first lowest."""
    padded = np.full((len(digits), padded_digits), PAD_DIGIT, np.uint8)
    padded[:, places] = digits
    fields = padded.reshape(len(digits), -1, WORD_DIGITS)
    words = np.zeros(fields.shape[:2], np.uint16)
    for field in range(WORD_DIGITS):
        words |= fields[..., field].astype(np.uint16) << np.uint16(2 * field)
    return words


def _blocks(rows: NDArray) -> NDArray:
    """Cut [N, columns] into [B, columns, R]; rows from N are 0."""
    n, columns = rows.shape
    size = _block_rows(n)
    blocks = -(-n // size)
    padded = np.zeros((blocks * size, columns), rows.dtype)
    padded[:n] = rows
    return np.ascontiguousarray(padded.reshape(blocks, size, columns).swapaxes(1, 2))


def _block_rows(n: int) -> int:
    """Return the rows of a block (R): N in equal parts, whole vectors where that is no waste."""
    rows = -(-n // -(-n // MAX_BLOCK_ROWS))
    return rows if rows < VECTOR_ROWS else -(-rows // VECTOR_ROWS) * VECTOR_ROWS


def _halved(values: NDArray, halves: int) -> NDArray:
    """Cut [B, groups, R] into [B, halves, groups, R]."""
    if halves == 1:
        return values[:, None]
    low = values & ((1 << HALF_BITS) - 1)
    return np.stack([low, values >> HALF_BITS], axis=1)
