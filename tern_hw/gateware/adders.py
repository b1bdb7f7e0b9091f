"""Adders with logic in front: portable, or in the ECP5's carry cells, which hold that logic."""

from amaranth.hdl import Cat, Const, Module, Signal, Value

from tern_hw.config import ArrayConfig, Dot
from tern_hw.gateware.carry_cell import carry_chain
from tern_hw.gateware.pipeline import add_with_carry

__all__ = ["Adders", "Ecp5Adders", "adders_of"]

#: Tables of `carry_chain`. A ^ ((B & C) ^ D): where that is 0, A is both operands' bit.
MASKED = 0x956A
#: (A & B) ^ (C & D): where that is 0, so is A & B both operands' bit.
PAIR = 0x7888


class Adders:
    """Sums of masked operands, left to synthesis: one carry chain, and the masks before it.

    `add` gives a + ((b & mask) ^ flip) + carry, all bits alike in one carry chain; the result is
    a bit wider than the operands.
    """

    def add(self, m: Module, a: Value, b: Value, mask: Value, flip: Value, carry: Value) -> Value:
        """Return a + ((b & mask) ^ flip) + carry, unsigned, one bit wider than `a`."""
        operand = Cat(b, Const(0, len(a) - len(b))) & mask
        total = Signal(len(a) + 1)
        flipped = operand ^ flip
        if isinstance(carry, Const) and carry.value == 0:
            m.d.comb += total.eq(a + flipped)
        else:
            m.d.comb += total.eq(add_with_carry(Cat(a, 0), Cat(flipped, 0), carry))
        return total

    def add_pair(self, m: Module, x: Value, first: Value, second: Value) -> Value:
        """Return x * (first + 2 * second) for bits `first` and `second`: two bits wider."""
        total = Signal(len(x) + 2)
        bits = len(x)
        m.d.comb += total.eq((x & first.replicate(bits)) + ((x & second.replicate(bits)) << 1))
        return total

    def add_rows(self, m: Module, x: Value, y: Value, part: Value | None = None) -> tuple:
        """Add x times each bit of y to the upper part of a product.

        Returns
        -------
        (upper part, the lower bits that are done)
            Without a `part`, y's first two bits begin a product.
        """
        bits = [y[at] for at in range(len(y))]
        done = []
        if part is None:
            total = self.add_pair(m, x, bits[0], bits[1])
            done, part, bits = [total[0], total[1]], total[2 : len(x) + 2], bits[2:]
        zeros = Const(0, len(x))
        for bit in bits:
            total = self.add(m, part, x, bit.replicate(len(x)), zeros, Const(0))
            done.append(total[0])
            part = total[1 : len(x) + 1]
        return part, Cat(*done)


class Ecp5Adders(Adders):
    """The same in cells of the ECP5: masks and flips cost nothing."""

    def add(self, m: Module, a: Value, b: Value, mask: Value, flip: Value, carry: Value) -> Value:
        bits = len(a)
        b = Cat(b, Const(0, bits - len(b)))
        rows = [(a[at], b[at], mask[at], flip[at]) for at in range(bits)]
        return self._chain(m, rows, MASKED, carry)

    def add_pair(self, m: Module, x: Value, first: Value, second: Value) -> Value:
        low, high = Cat(x, 0), Cat(0, x)
        rows = [(low[at], first, high[at], second) for at in range(len(x) + 1)]
        return self._chain(m, rows, PAIR, Const(0))

    @staticmethod
    def _chain(m: Module, rows: list, table: int, carry: Value) -> Value:
        """Return the sum of a chain, the last carry as its highest bit."""
        # One cell more than the operands have bits: it hands the carry out.
        rows = [*rows, (Const(0),) * 4]
        rows += [(Const(0),) * 4] * (len(rows) % 2)
        total = Signal(len(rows))
        carry_chain(m, rows, table, carry, sums=[*total])
        return total


def adders_of(config: ArrayConfig) -> Adders:
    """Return the adders of an array's multiply-adds: by the means of its dot products."""
    return Ecp5Adders() if config.dot is Dot.CARRY else Adders()
