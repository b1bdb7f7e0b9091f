"""`KernelMatrix`: a ternary matrix as one stream of bytes, in the order that kernels read."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.config import FP16_FRACTION_BITS
from tern_hw.errors import TernError
from tern_hw.kernels import job
from tern_hw.kernels.emit import BLOCK_BYTES, BLOCK_ROWS, DIGITS_PER_FIELDS
from tern_hw.kernels.instructions import INSTRUCTIONS, PORTABLE, available, chosen
from tern_hw.matrix import GroupSize, TernaryMatrix
from tern_hw.packing import PAD_DIGIT

__all__ = ["MAX_GROUP", "KernelMatrix", "repack"]

#: Most inputs of a group: its digit sums, 64 times over in the top field, stay below 2**31.
MAX_GROUP: Final = 1 << 18
#: Most inputs of a group whose scales are integers: S of int8 activations to -127 fits 16 bits.
MAX_INTEGER_GROUP: Final = 256
#: Largest magnitude of an activation, and of a limb.
LIMB_MAX: Final = 128
#: A float64 holds any sum of multiples of 2**-24 below this, exactly.
FLOAT64_LIMIT: Final = 1 << (53 - FP16_FRACTION_BITS)
#: Largest magnitude of a scale or shift in its row's unit.
INTEGER_LIMIT: Final = (1 << 15) - 1
#: A row's unit is at most 2**-8, so that what its shifts leave fits 16 bits of 2**-24.
MOST_UNIT_BITS: Final = 15
#: Bytes of a cache line: the stream begins on one ...
LINE: Final = 64
#: ... and from two huge pages up on a page: numpy asks for such pages then.
HUGE_PAGE: Final = 1 << 21


@dataclass(frozen=True, eq=False)
class KernelMatrix:
    """A matrix [N, K] repacked: P blocks of 32 rows, each a run of bytes.

    A block has its groups in turn. A group has its steps, in each four bytes of every row: byte
    4 * r + j of step s holds the codes of inputs (fields * s + f) * 4 + j, field f lowest first.
    After the steps come the rows' scales and shifts: as binary16, 32 of each; or as pairs (A, B) of
    16-bit integers, scale = A * unit and shift = B * unit + rest * 2**-24, with one unit a row. The
    rests follow the last group, for each pair of groups 32 pairs of 16-bit integers.

    Where the instruction set has no kernel, or a row's sum could exceed what a float64 holds
    exactly, there is no stream, and the reference computes.
    """

    #: (N, K).
    shape: tuple[int, int]
    #: Inputs per scale and shift; the last group may be short.
    group_size: GroupSize
    #: "2bit" (four fields a byte) or "base3" (five).
    packing: str
    #: The instruction set that reads the stream.
    instructions: str
    #: uint8 [P, bytes]; None: the reference computes.
    stream: NDArray[np.uint8] | None
    #: First step of each group, and the end: int64 [groups + 1].
    starts: NDArray[np.int64]
    #: The unit of each row's integer scales, float64 [32 * P]; None where scales are binary16.
    units: NDArray[np.float64] | None
    #: Largest |A| + |B|, and twice the largest |rest|, whichever is more.
    scale_limit: int
    #: The matrix itself where there is no stream; else None: the stream holds all of it.
    kept: TernaryMatrix | None
    #: What errors call the matrix.
    name: str

    @property
    def group_inputs(self) -> int:
        """Inputs of a full group."""
        return self.shape[1] if self.group_size == "row" else min(self.group_size, self.shape[1])

    def matrix(self) -> TernaryMatrix:
        """Return the matrix as it was, in the packing of the stream."""
        if self.kept is not None:
            return self.kept
        assert self.stream is not None
        scale, shift = _scales_of(self)
        return TernaryMatrix.from_digits(
            _digits_of(self),
            scale,
            shift,
            group_size=self.group_size,
            packing=self.packing,
            name=self.name,
        )

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """What every job of the matrix has in common, int64 [job.NUMBERS]."""
        assert self.stream is not None
        groups, codes = len(self.starts) - 1, DIGITS_PER_FIELDS[self.packing]
        numbers = np.zeros(job.NUMBERS, np.int64)
        numbers[job.STREAM] = self.stream.ctypes.data
        numbers[job.STARTS] = self.starts.ctypes.data
        numbers[job.UNITS] = 0 if self.units is None else self.units.ctypes.data
        numbers[job.STRIDE] = self.stream.shape[1]
        numbers[job.GROUPS] = groups
        numbers[job.ROW] = len(self.stream) * BLOCK_ROWS
        numbers[job.GROUP_INPUTS] = self.group_inputs
        numbers[job.FIELDS] = codes
        numbers[job.SCALE_LIMIT] = self.scale_limit
        numbers[job.COLUMN_BYTES] = 4 * (self.steps * codes + 3 * groups + (groups + 1) // 2)
        numbers.setflags(write=False)
        return numbers

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or another process needs: the addresses in `numbers` are not that."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def steps(self) -> int:
        """Steps of a block."""
        return int(self.starts[-1])

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads of the matrix."""
        units = 0 if self.units is None else self.units.nbytes
        return units + (0 if self.stream is None else self.stream.nbytes)


def repack(
    matrix: TernaryMatrix, packing: str = "2bit", *, instructions: str | None = None
) -> KernelMatrix:
    """Return a matrix as the kernels read it.

    Parameters
    ----------
    matrix : TernaryMatrix [N, K]
    packing : str
        "2bit" or "base3", whatever the matrix itself has. 2-bit codes are faster where the caches
        hold the matrix, base-3 ones where memory limits; without an instruction that looks bytes
        up codes are 2-bit all the same.
    instructions : str, optional
        One of `available()`; None: as `chosen()`.

    Returns
    -------
    KernelMatrix
        2 (base-3: 1.6) bits a weight, 6 bytes a row and group; rows are padded to 32, groups to 16
        (20) inputs.

    Raises
    ------
    TernError
        If the packing is unknown, or the processor lacks the instructions.
    """
    name = instructions if instructions is not None else chosen()
    if name not in available():
        choices = ", ".join(available())
        raise TernError(f"instructions must be one of {choices} here, not {name!r}")
    if packing not in DIGITS_PER_FIELDS:
        choices = ", ".join(DIGITS_PER_FIELDS)
        raise TernError(f"packing must be one of {choices}, not {packing!r}")
    common = matrix.shape, matrix.group_size
    if name == PORTABLE or not is_exact(matrix) or matrix.group_inputs > MAX_GROUP:
        none = np.zeros(1, np.int64)
        return KernelMatrix(*common, packing, PORTABLE, None, none, None, 0, matrix, matrix.name)
    found = INSTRUCTIONS[name]
    if packing == "base3" and not found.lookup:
        packing = "2bit"
    scales = _integer_scales(matrix) if found.dot_pairs is not None else None
    lengths = group_lengths(matrix)
    starts = np.concatenate(([0], np.cumsum(-(-lengths // (4 * DIGITS_PER_FIELDS[packing])))))
    codes = _codes(matrix, packing, starts)
    if scales is None:
        stream = _stream(codes, starts, _binary16_tail(matrix), None)
        units, limit = None, 0
    else:
        stream = _stream(codes, starts, scales.pairs(), scales.rests())
        units, limit = scales.units, scales.limit
    return KernelMatrix(
        *common, packing, name, stream, starts, units, limit, kept=None, name=matrix.name
    )


def group_lengths(matrix: TernaryMatrix) -> NDArray[np.int64]:
    """Return the inputs of each group, int64 [groups]."""
    lengths = np.full(matrix.groups, matrix.group_inputs, np.int64)
    lengths[-1] = matrix.in_features - (matrix.groups - 1) * matrix.group_inputs
    return lengths


def is_exact(matrix: TernaryMatrix) -> bool:
    """Whether a float64 holds every partial sum of every row exactly."""
    sizes = np.abs(matrix.scale.astype(np.float64)) + np.abs(matrix.shift.astype(np.float64))
    return bool((sizes @ group_lengths(matrix)).max() * LIMB_MAX < FLOAT64_LIMIT)


@dataclass(frozen=True)
class _IntegerScales:
    """Scales A * unit and shifts B * unit + rest * 2**-24, rows padded to whole blocks."""

    #: int64 [32 * P, groups].
    scale: NDArray[np.int64]
    shift: NDArray[np.int64]
    rest: NDArray[np.int64]
    #: float64 [32 * P].
    units: NDArray[np.float64]

    @property
    def limit(self) -> int:
        """The most that one group's activations are multiplied by in a sum of 32 bits."""
        return max(int((abs(self.scale) + abs(self.shift)).max()), 2 * int(abs(self.rest).max()))

    def pairs(self) -> NDArray[np.uint8]:
        """Return pairs (A, B) as bytes [P, groups, 128]."""
        both = np.stack([self.scale, self.shift], axis=-1).astype(np.int16)
        blocks = both.reshape(-1, BLOCK_ROWS, *both.shape[1:]).swapaxes(1, 2)
        return np.ascontiguousarray(blocks).view(np.uint8).reshape(*blocks.shape[:2], -1)

    def rests(self) -> NDArray[np.uint8]:
        """Return the rests of pairs of groups as bytes [P, pairs, 128]."""
        groups = self.rest.shape[1]
        padded = np.pad(self.rest, ((0, 0), (0, groups % 2))).astype(np.int16)
        blocks = padded.reshape(-1, BLOCK_ROWS, padded.shape[1] // 2, 2).swapaxes(1, 2)
        return np.ascontiguousarray(blocks).view(np.uint8).reshape(*blocks.shape[:2], -1)


def _integer_scales(matrix: TernaryMatrix) -> _IntegerScales | None:
    """Return scales and shifts as 16-bit integers, or None where they are not that.

    A row's unit is the largest power of two that all its scales are multiples of.
    """
    if matrix.group_inputs > MAX_INTEGER_GROUP:
        return None
    scale, shift = (_padded_units(part) for part in (matrix.scale, matrix.shift))
    used = np.bitwise_or.reduce(scale, axis=1)
    # The lowest bit set; of a row without scales, as if that were the highest.
    lowest = np.where(used == 0, 1 << MOST_UNIT_BITS, used & -used)
    bits = np.log2(np.minimum(lowest, 1 << MOST_UNIT_BITS)).astype(np.int64)[:, None]
    half = (1 << bits) >> 1
    whole = (shift + half) >> bits
    scales = _IntegerScales(
        scale >> bits,
        whole,
        shift - (whole << bits),
        np.ldexp(1.0, bits[:, 0] - FP16_FRACTION_BITS),
    )
    largest = max(int(abs(part).max()) for part in (scales.scale, scales.shift, scales.rest))
    return scales if largest <= INTEGER_LIMIT else None


def _padded_units(values: NDArray[np.float16]) -> NDArray[np.int64]:
    """Return binary16 values in units of 2**-24, rows padded with 0 to whole blocks."""
    units = np.ldexp(values.astype(np.float64), FP16_FRACTION_BITS).astype(np.int64)
    return np.pad(units, ((0, -len(units) % BLOCK_ROWS), (0, 0)))


def _binary16_tail(matrix: TernaryMatrix) -> NDArray[np.uint8]:
    """Return 32 scales and 32 shifts of each block and group as bytes [P, groups, 128]."""
    parts = []
    for values in (matrix.scale, matrix.shift):
        padded = np.pad(values, ((0, -len(values) % BLOCK_ROWS), (0, 0)))
        parts.append(padded.reshape(-1, BLOCK_ROWS, padded.shape[1]).swapaxes(1, 2))
    both = np.ascontiguousarray(np.concatenate(parts, axis=2))
    return both.view(np.uint8).reshape(*both.shape[:2], -1)


def _codes(matrix: TernaryMatrix, packing: str, starts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the bytes of all steps, [P, steps, 128]."""
    fields = DIGITS_PER_FIELDS[packing]
    n = matrix.out_features
    padded_rows = -(-n // BLOCK_ROWS) * BLOCK_ROWS
    digits = np.full((padded_rows, int(starts[-1]) * 4 * fields), PAD_DIGIT, np.uint8)
    digits[:n, places(matrix.in_features, matrix.group_inputs, fields, starts)] = matrix.digits()
    split = digits.reshape(-1, BLOCK_ROWS, int(starts[-1]), fields, 4)
    weights = [4**field if packing == "2bit" else 3**field for field in range(fields)]
    codes = np.zeros((*split.shape[:3], 4), np.uint8)
    for field, weight in enumerate(weights):
        codes += split[..., field, :] * np.uint8(weight)
    return codes.transpose(0, 2, 1, 3).reshape(len(split), -1, BLOCK_BYTES)


def places(k: int, group_inputs: int, fields: int, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each input lies in a row whose groups are padded to whole steps, int64 [K]."""
    inputs = np.arange(k)
    group = inputs // group_inputs
    return np.asarray(starts[group] * (4 * fields) + inputs - group * group_inputs)


def _stream(
    codes: NDArray[np.uint8],
    starts: NDArray[np.int64],
    scales: NDArray[np.uint8],
    rests: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    """Return each block's bytes in one run, [P, bytes], on a cache line and never written again."""
    blocks, groups = scales.shape[:2]
    pieces: list[Any] = []
    for group in range(groups):
        pieces += [codes[:, starts[group] : starts[group + 1]], scales[:, group : group + 1]]
    if rests is not None:
        pieces.append(rests)
    size = sum(piece[0].size for piece in pieces)
    stream = _aligned(blocks * size).reshape(blocks, size)
    place = 0
    for piece in pieces:
        end = place + piece[0].size
        stream[:, place:end] = piece.reshape(blocks, -1)
        place = end
    stream.setflags(write=False)
    return stream


def _aligned(size: int) -> NDArray[np.uint8]:
    """Return bytes that begin on a cache line, or many on a huge page."""
    unit = HUGE_PAGE if size >= 2 * HUGE_PAGE else LINE
    memory = np.empty(size + unit, np.uint8)
    start = -memory.ctypes.data % unit
    return memory[start : start + size]


# ------------------------------------------------------------------------------ and back


def _tails(matrix: KernelMatrix) -> NDArray[np.uint8]:
    """Return what follows the codes of each group, bytes [P, groups, 128]."""
    assert matrix.stream is not None
    ends = (matrix.starts[1:] + np.arange(len(matrix.starts) - 1)) * BLOCK_BYTES
    return np.stack([matrix.stream[:, end : end + BLOCK_BYTES] for end in ends], axis=1)


def _scales_of(matrix: KernelMatrix) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Return the scales and shifts, float16 [N, groups]."""
    n, tails = matrix.shape[0], _tails(matrix)
    blocks, groups = tails.shape[:2]
    if matrix.units is None:
        halves = tails.view(np.float16).reshape(blocks, groups, 2, BLOCK_ROWS)
        rows = halves.transpose(2, 0, 3, 1).reshape(2, -1, groups)[:, :n]
        return np.ascontiguousarray(rows[0]), np.ascontiguousarray(rows[1])
    assert matrix.stream is not None
    pairs = tails.view(np.int16).reshape(blocks, groups, BLOCK_ROWS, 2)
    rests = matrix.stream[:, (matrix.steps + groups) * BLOCK_BYTES :].copy().view(np.int16)
    by_row = rests.reshape(blocks, -1, BLOCK_ROWS, 2).swapaxes(1, 2)
    rest = by_row.reshape(blocks * BLOCK_ROWS, -1)[:n, :groups]
    whole = pairs.swapaxes(1, 2).reshape(-1, groups, 2)[:n] * matrix.units[:n, None, None]
    # Sums of multiples of 2**-24 that were binary16 values: exact.
    shift = whole[..., 1] + rest * 2.0**-FP16_FRACTION_BITS
    return whole[..., 0].astype(np.float16), shift.astype(np.float16)


def _digits_of(matrix: KernelMatrix) -> NDArray[np.uint8]:
    """Return the digits, uint8 [N, K]."""
    assert matrix.stream is not None
    fields = DIGITS_PER_FIELDS[matrix.packing]
    first = [
        (start + group) * BLOCK_BYTES for group, start in enumerate(matrix.starts[:-1].tolist())
    ]
    last = [(end + group) * BLOCK_BYTES for group, end in enumerate(matrix.starts[1:].tolist())]
    codes = np.concatenate(
        [matrix.stream[:, a:b] for a, b in zip(first, last, strict=True)], axis=1
    ).reshape(len(matrix.stream), -1, BLOCK_ROWS, 4)
    base = 4 if matrix.packing == "2bit" else 3
    weights = np.array([base**field for field in range(fields)], np.uint8)
    split = codes[..., None, :] // weights[:, None] % np.uint8(base)
    rows = split.swapaxes(1, 2).reshape(len(matrix.stream) * BLOCK_ROWS, -1)
    n, k = matrix.shape
    return rows[:n, places(k, matrix.group_inputs, fields, matrix.starts)].astype(np.uint8)
