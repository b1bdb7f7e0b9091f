"""Vectors of one instruction set, and loops over them, as LLVM IR."""

from typing import Any

from llvmlite import ir

from tern_hw.kernels.instructions import I8, I16, I32, INSTRUCTIONS

__all__ = ["DOUBLE", "I64", "POINTER", "Vectors", "offset"]

I64 = ir.IntType(64)
DOUBLE = ir.DoubleType()
POINTER = ir.PointerType()


def offset(builder: Any, pointer: Any, index: Any, kind: Any) -> Any:
    """Return the address of pointer[index], for values of that kind."""
    return builder.gep(pointer, [index], source_etype=kind)


class Vectors:
    """Values and types of one instruction set's vectors, and how IR makes them."""

    def __init__(self, builder: Any, kernel: str) -> None:
        name, self.packing, columns = kernel.split("/")[:3]
        self.builder = builder
        self.instructions = INSTRUCTIONS[name]
        #: Columns computed, and how many lie side by side: "4", or "3of4".
        self.columns, self.pitch = (int(columns.split("of")[end]) for end in (0, -1))
        self.lanes = self.instructions.lanes
        self.vectors = self.instructions.vectors[self.columns > 2]
        self.bytes = ir.VectorType(I8, 4 * self.lanes)
        self.shorts = ir.VectorType(I16, 2 * self.lanes)
        self.ints = ir.VectorType(I32, self.lanes)
        self.doubles = ir.VectorType(DOUBLE, self.lanes)
        self.zero = ir.Constant(self.ints, [0] * self.lanes)

    def splat(self, value: Any, kind: Any) -> Any:
        """Return a vector of one value."""
        builder = self.builder
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
        zeros = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
        return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)

    def integer(self, value: int) -> Any:
        """Return a constant vector of 32-bit integers."""
        return ir.Constant(self.ints, [value] * self.lanes)

    def byte(self, value: int) -> Any:
        """Return a constant vector of bytes."""
        return ir.Constant(self.bytes, [value] * (4 * self.lanes))

    def at(self, pointer: Any, index: int, kind: Any) -> Any:
        """Return the address of pointer[index] of that kind."""
        return offset(self.builder, pointer, I64(index), kind)

    def load(self, pointer: Any, index: int, kind: Any, loaded: Any) -> Any:
        """Return what lies at pointer[index] of that kind, a vector at any alignment."""
        align = 1 if isinstance(loaded, ir.VectorType) else None
        return self.builder.load(self.at(pointer, index, kind), typ=loaded, align=align)

    def store(self, value: Any, address: Any) -> None:
        self.builder.store(value, self.builder.bitcast(address, value.type.as_pointer()), align=4)

    def loop(self, count: Any, initial: list[Any], body: Any, *, unrolled: int = 1) -> list[Any]:
        """Emit `body(step, values) -> values` for steps 0 to count - 1, some of them in a row."""
        builder = self.builder
        bulk = builder.and_(count, I64(-unrolled)) if unrolled > 1 else count
        values = self._range(I64(0), bulk, unrolled, initial, body)
        if unrolled > 1:
            values = self._range(bulk, count, 1, values, body)
        return values

    def _range(
        self, first: Any, last: Any, stride: int, initial: list[Any], body: Any
    ) -> list[Any]:
        builder = self.builder
        before = builder.block
        head, block, after = (
            builder.append_basic_block(name) for name in ("head", "steps", "after")
        )
        builder.branch(head)
        builder.position_at_end(head)
        step = builder.phi(I64)
        values = [builder.phi(value.type) for value in initial]
        builder.cbranch(builder.icmp_signed("<", step, last), block, after)
        builder.position_at_end(block)
        results: list[Any] = values
        for each in range(stride):
            results = body(builder.add(step, I64(each)), results)
        following = builder.add(step, I64(stride))
        step.add_incoming(first, before)
        step.add_incoming(following, builder.block)
        for phi, value, result in zip(values, initial, results, strict=True):
            phi.add_incoming(value, before)
            phi.add_incoming(result, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return values

    def fence(self) -> None:
        """Let the compiler think that memory may have changed here.

        Else it would hold a tile in registers from group to group, which there are not, and write
        it twice.
        """
        nothing = ir.FunctionType(ir.VoidType(), [])
        self.builder.call(ir.InlineAsm(nothing, "", "~{memory}", side_effect=True), [])
