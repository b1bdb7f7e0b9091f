"""The compiled heart of the kernels: one group of 32 rows for a few columns, as LLVM IR."""

import hashlib
from pathlib import Path
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tern_hw.kernels import instructions, vectors
from tern_hw.kernels.instructions import I8, I16, I32, call
from tern_hw.kernels.vectors import DOUBLE, I64, POINTER, Vectors, offset

__all__ = ["BLOCK_BYTES", "BLOCK_ROWS", "DIGITS_PER_FIELDS", "EMITTED", "add_group", "add_rests"]

#: Rows of a block.
BLOCK_ROWS: Final = 32
#: Bytes of a block's step: four bytes a row.
BLOCK_BYTES: Final = 4 * BLOCK_ROWS
#: Digits that a byte holds, one word of four activations each, by packing.
DIGITS_PER_FIELDS: Final = {"2bit": 4, "base3": 5}
#: What identifies this code in the cache of compiled functions, which looks at their own file only.
EMITTED: Final = hashlib.sha256(
    b"".join(
        Path(name).read_bytes() for name in (__file__, instructions.__file__, vectors.__file__)
    )
).hexdigest()[:16]

HALF, FLOAT = ir.HalfType(), ir.FloatType()

#: Steps of a group in a row: what a jump costs, and what adds up addresses, is shared by so many.
UNROLLED: Final = 8
#: Inverse of 81 modulo 2**32: it divides a sum of multiples of 81 exactly.
INVERSE_81: Final = pow(81, -1, 1 << 32)


@intrinsic
def add_group(
    typing_context: Any,
    kernel: Any,
    stream: Any,
    place: Any,
    steps: Any,
    x: Any,
    word: Any,
    totals: Any,
    total: Any,
    tile: Any,
    start: Any,
) -> Any:
    """Add scale * S + shift * X of one group to 32 rows of each of a few columns.

    Parameters
    ----------
    kernel : str
        Literal "instructions/packing/columns/...", "3of4" columns being three of four that lie
        side by side: `word`, `total` and `start` are of the first of them.
    stream : uint8 [...]
        Codes of the group, steps of BLOCK_BYTES, then the scales and shifts of 32 rows: 32 of
        each in binary16, or 32 pairs of 16-bit integers.
    place : int
        Byte at which the group begins.
    steps : int
    x : int32 [...]
        Four activations a word, a word of each column in turn.
    word : int
        Index in `x` of the group's first word.
    totals : int32 [...]
        -X, and X * 2**16, of each column.
    total : int
        Index in `totals` of the first column's.
    tile : float64 or int32 [...]
        Of integers where scales and shifts are.
    start : int
        Index in `tile` of the first column's first row; columns lie 32 apart.
    """
    if not isinstance(kernel, types.StringLiteral):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = _addresses(context, builder, signature, arguments)
        integers = tile.dtype == types.int32
        group = _Group(
            builder,
            kernel.literal_value,
            at(1, 2, I8),
            arguments[3],
            at(4, 5, I32),
            at(6, 7, I32),
            at(8, 9, I32 if integers else DOUBLE),
            integer_scales=integers,
        )
        for first in range(0, BLOCK_ROWS, group.lanes * group.vectors):
            group.emit(first)
        return context.get_dummy_value()

    index = types.intp
    return types.void(kernel, stream, index, index, x, index, totals, index, tile, index), generate


@intrinsic
def add_rests(
    typing_context: Any,
    kernel: Any,
    stream: Any,
    place: Any,
    count: Any,
    pairs: Any,
    pair: Any,
    tile: Any,
    start: Any,
) -> Any:
    """Add rest * X of pairs of groups to 32 rows of each of a few columns.

    Parameters
    ----------
    kernel : str
        As for `add_group`.
    stream : uint8 [...]
        For each pair of groups 32 pairs of 16-bit integers.
    place : int
        Byte at which the first pair begins.
    count : int
        Pairs of groups, one or more.
    pairs : int32 [...]
        X of both groups, in 16 bits each, a word of each column in turn.
    pair : int
        Index in `pairs` of the first pair's first column.
    tile : int32 [...]
    start : int
        Index in `tile` of the first column's first row; columns lie 32 apart.
    """
    if not isinstance(kernel, types.StringLiteral):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = _addresses(context, builder, signature, arguments)
        _Rests(
            builder,
            kernel.literal_value,
            at(1, 2, I8),
            arguments[3],
            at(4, 5, I32),
            at(6, 7, I32),
        ).emit()
        return context.get_dummy_value()

    index = types.intp
    return types.void(kernel, stream, index, index, pairs, index, tile, index), generate


def _addresses(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return a function that gives an array argument's address, at an index if there is one."""

    def at(array: int, index: int | None = None, kind: Any = None) -> Any:
        value = context.make_array(signature.args[array])(context, builder, arguments[array])
        address = builder.bitcast(value.data, POINTER)
        return address if index is None else offset(builder, address, arguments[index], kind)

    return at


class _Rests(Vectors):
    """Emits the sums of rests; the arguments are IR values."""

    def __init__(
        self, builder: Any, kernel: str, rests: Any, count: Any, pairs: Any, tile: Any
    ) -> None:
        super().__init__(builder, kernel)
        self.rests, self.count, self.pairs, self.tile = rests, count, pairs, tile

    def emit(self) -> None:
        """Emit a loop over the pairs for every few rows."""
        builder = self.builder
        places = [(column, v) for column in range(self.columns) for v in range(self.vectors)]
        dot = self.instructions.dot_pairs
        assert dot is not None
        for first in range(0, BLOCK_ROWS, self.lanes * self.vectors):

            def body(step: Any, sums: list[Any], first: int = first) -> list[Any]:
                at = offset(builder, self.rests, builder.mul(step, I64(BLOCK_BYTES)), I8)
                words = offset(builder, self.pairs, builder.mul(step, I64(self.columns)), I32)
                rests = [
                    self.load(at, 4 * (first + v * self.lanes), I8, self.shorts)
                    for v in range(self.vectors)
                ]
                x = [
                    builder.bitcast(
                        self.splat(self.load(words, column, I32, I32), self.ints), self.shorts
                    )
                    for column in range(self.columns)
                ]
                return [
                    dot(builder, total, rests[v], x[column])
                    for total, (column, v) in zip(sums, places, strict=True)
                ]

            for total, (column, v) in zip(
                self.loop(self.count, [self.zero] * len(places), body), places, strict=True
            ):
                row = first + v * self.lanes
                self.store(total, self.at(self.tile, column * BLOCK_ROWS + row, I32))


class _Group(Vectors):
    """Emits the code of one group; the arguments are IR values."""

    def __init__(
        self,
        builder: Any,
        kernel: str,
        codes: Any,
        steps: Any,
        x: Any,
        totals: Any,
        tile: Any,
        *,
        integer_scales: bool,
    ) -> None:
        super().__init__(builder, kernel)
        self.codes, self.steps, self.x, self.totals, self.tile = codes, steps, x, totals, tile
        self.integer_scales = integer_scales
        #: Each field of a byte has a sum of its own: its codes keep their place in the byte.
        self.masks = self.instructions.wide_codes and self.columns <= 2
        self.sums_per_vector = DIGITS_PER_FIELDS[self.packing] if self.masks else 1

    def emit(self, first: int) -> None:
        """Emit the loop over the steps for rows first, first + 1, ..., and what follows it."""
        self.fence()
        initial = []
        for column in range(self.columns):
            start = self.splat(self.load(self.totals, 2 * column, I32, I32), self.ints)
            initial += [start] * self.vectors
            initial += [self.zero] * (self.vectors * (self.sums_per_vector - 1))
        sums = self.loop(
            self.steps,
            initial,
            lambda step, values: self._step(first, step, values),
            unrolled=UNROLLED,
        )
        scales = offset(
            self.builder, self.codes, self.builder.mul(self.steps, I64(BLOCK_BYTES)), I8
        )
        for vector in range(self.vectors):
            row = first + vector * self.lanes
            wholes = [self._whole(sums, column, vector) for column in range(self.columns)]
            if self.integer_scales:
                self._scale_by_integers(scales, row, wholes)
            else:
                self._scale(scales, row, wholes)

    def _step(self, first: int, step: Any, sums: list[Any]) -> list[Any]:
        """Emit one step; sums are ordered by column, then field, then vector."""
        builder = self.builder
        digits = DIGITS_PER_FIELDS[self.packing]
        at = offset(builder, self.codes, builder.mul(step, I64(BLOCK_BYTES)), I8)
        words = offset(builder, self.x, builder.mul(step, I64(digits * self.pitch)), I32)
        fields = [
            self._fields(self.load(at, 4 * (first + vector * self.lanes), I8, self.bytes))
            for vector in range(self.vectors)
        ]
        sums = list(sums)
        for digit in range(digits):
            for column in range(self.columns):
                word = self.load(words, digit * self.pitch + column, I32, I32)
                x = builder.bitcast(self.splat(word, self.ints), self.bytes)
                for vector in range(self.vectors):
                    place = self._sum(column, digit if self.masks else 0, vector)
                    sums[place] = self.instructions.dot(
                        builder, sums[place], fields[vector][digit], x
                    )
        return sums

    def _sum(self, column: int, field: int, vector: int) -> int:
        return (column * self.sums_per_vector + field) * self.vectors + vector

    def _fields(self, codes: Any) -> list[Any]:
        """Return the digits of a vector of bytes, one vector for each digit of a byte."""
        if self.packing == "2bit":
            return self._two_bits(codes)
        builder = self.builder
        rest = codes
        for _ in range(2):
            rest = self._minimum(rest, builder.sub(rest, self.byte(81)))
        table = [ir.Constant(self.bytes, TABLE[half : half + 64]) for half in (0, 64)]
        looked = call(
            builder, "llvm.x86.avx512.vpermi2var.qi.512", self.bytes, table[0], rest, table[1]
        )
        if self.masks:
            return [*self._two_bits(looked), builder.sub(codes, rest)]
        reached = [builder.icmp_unsigned(">=", codes, self.byte(level)) for level in (81, 162)]
        top = builder.add(*(builder.zext(each, self.bytes) for each in reached))
        return [*self._two_bits(looked), top]

    def _two_bits(self, codes: Any) -> list[Any]:
        builder = self.builder
        if self.masks:
            return [builder.and_(codes, self.byte(3 << 2 * field)) for field in range(4)]
        words = builder.bitcast(codes, self.ints)
        shifted = [builder.lshr(words, self.integer(2 * field)) for field in range(4)]
        return [builder.and_(builder.bitcast(each, self.bytes), self.byte(3)) for each in shifted]

    def _scale_by_integers(self, scales: Any, row: int, wholes: list[Any]) -> None:
        """Emit tile += scale * S + shift * X, S and X in 16 bits each."""
        builder = self.builder
        pairs = self.load(scales, 4 * row, I8, self.shorts)
        assert self.instructions.dot_pairs is not None
        for column, whole in enumerate(wholes):
            upper = self.splat(self.load(self.totals, 2 * column + 1, I32, I32), self.ints)
            both = builder.or_(builder.and_(whole, self.integer(0xFFFF)), upper)
            at = self.at(self.tile, column * BLOCK_ROWS + row, I32)
            before = builder.load(at, typ=self.ints, align=4)
            operands = pairs, builder.bitcast(both, self.shorts)
            self.store(self.instructions.dot_pairs(builder, before, *operands), at)

    def _scale(self, scales: Any, row: int, wholes: list[Any]) -> None:
        """Emit tile += scale * S + shift * X in float64."""
        builder = self.builder
        alpha = self._halves(scales, row)
        gamma = self._halves(scales, BLOCK_ROWS + row)
        for column, whole in enumerate(wholes):
            negative = builder.sitofp(self.load(self.totals, 2 * column, I32, I32), DOUBLE)
            total = builder.fneg(negative)
            at = self.at(self.tile, column * BLOCK_ROWS + row, DOUBLE)
            y = builder.load(at, typ=self.doubles, align=8)
            y = self._multiply_add(alpha, builder.sitofp(whole, self.doubles), y)
            self.store(self._multiply_add(gamma, self.splat(total, self.doubles), y), at)

    def _whole(self, sums: list[Any], column: int, vector: int) -> Any:
        """Return S of a vector's rows: its fields' sums, each by its place in the byte."""
        builder = self.builder
        parts = [sums[self._sum(column, field, vector)] for field in range(self.sums_per_vector)]
        result = parts[0]
        for field, part in enumerate(parts[1:4], 1):
            shift = self.integer(2 * field)
            result = builder.add(result, builder.ashr(part, shift))
        if len(parts) == 5:
            inverse = self.integer(INVERSE_81)
            result = builder.add(result, builder.mul(parts[4], inverse))
        return result

    def _multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        name = f"llvm.fmuladd.v{self.lanes}f64"
        return call(self.builder, name, self.doubles, a, b, c)

    def _halves(self, at: Any, index: int) -> Any:
        """Return `lanes` binary16 values as float64."""
        builder = self.builder
        address = self.at(at, 2 * index, I8)
        if self.instructions.half:
            halves = builder.load(address, typ=ir.VectorType(HALF, self.lanes), align=1)
            return builder.fpext(halves, self.doubles)
        # Exponent and fraction moved to where binary32 has them are 2**-112 of the value.
        bits = builder.load(address, typ=ir.VectorType(I16, self.lanes), align=1)
        wide = builder.zext(bits, self.ints)
        size = builder.shl(self._and(wide, 0x7FFF), self.integer(13))
        sign = builder.shl(self._and(wide, 0x8000), self.integer(16))
        floats = ir.VectorType(FLOAT, self.lanes)
        unit = ir.Constant(floats, [2.0**112] * self.lanes)
        value = builder.fmul(builder.bitcast(builder.or_(size, sign), floats), unit)
        return builder.fpext(value, self.doubles)

    def _and(self, value: Any, mask: int) -> Any:
        return self.builder.and_(value, self.integer(mask))

    def _minimum(self, a: Any, b: Any) -> Any:
        name = f"llvm.umin.v{4 * self.lanes}i8"
        return call(self.builder, name, self.bytes, a, b)


def _four_fields(value: int) -> int:
    """Return the four lower base-3 digits of a byte's value, two bits each."""
    return sum((value // 3**place % 3) << 2 * place for place in range(4))


#: Fields of each value below 81; the rest of a table of 128 is never looked up.
TABLE: Final = [_four_fields(value) if value < 81 else 0 for value in range(128)]
