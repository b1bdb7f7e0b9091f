"""The integer opponent: a multiply-accumulate of 8-bit operands into 32 bits."""

from amaranth.hdl import Cat, Const, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.gateware.adders import Adders

__all__ = ["Int8Mac"]

BITS, SUM_BITS = 8, 32


class Int8Mac(wiring.Component):
    """Return a * b + c, modulo 2**32.

    The product is a sum of rows, one a bit of b, as synthesis would otherwise make it of carry-save
    adders at nearly twice the size; `dsp` leaves it to synthesis, which then takes a multiplier.

    Latency: `latency` = `registers` (0: combinational; 1: the result; 2: the product, too); `loop`
    of them from `c`, which comes `latency` - `loop` cycles later. Throughput: a result a cycle.
    Backpressure: none.

    Members
    -------
    a, b : In, signed(8)
    c : In, signed(32)
    result : Out, signed(32)
    """

    def __init__(self, *, registers: int = 0, adders: Adders | None = None, dsp: bool = False):
        if not 0 <= registers <= 2:
            raise ValueError(f"registers must be 0 to 2, not {registers!r}")
        self.adders = adders or Adders()
        self.dsp = dsp
        self.latency = registers
        self.loop = min(registers, 1)
        super().__init__(
            {
                "a": In(signed(BITS)),
                "b": In(signed(BITS)),
                "c": In(signed(SUM_BITS)),
                "result": Out(signed(SUM_BITS)),
            }
        )

    @staticmethod
    def model(a: int, b: int, c: int) -> int:
        """Return the sum as a two's-complement integer of 32 bits."""
        half = 1 << (SUM_BITS - 1)
        return (a * b + c + half) % (2 * half) - half

    def elaborate(self, platform):
        m = Module()
        product = Signal(signed(2 * BITS))
        total = Signal(signed(SUM_BITS))
        first = m.d.sync if self.latency == 2 else m.d.comb
        last = m.d.sync if self.latency else m.d.comb
        first += product.eq(self.a * self.b if self.dsp else self._product(m))
        m.d.comb += total.eq(product + self.c)
        last += self.result.eq(total)
        return m

    def _product(self, m):
        """Add a row a bit of b (Baugh and Wooley, 1973, with constants).

        A bit of negative weight is its complement less one; all the ones together are a one in
        two places, 2**8 and 2**15, modulo 2**16.
        """
        a, sign = self.a.as_unsigned(), 1 << (BITS - 1)
        first = Signal(BITS)
        m.d.comb += first.eq((a & self.b[0].replicate(BITS)) ^ sign)
        done, part = [first[0]], Cat(first[1:], 1)
        for at in range(1, BITS):
            flip = sign if at < BITS - 1 else sign - 1
            mask = self.b[at].replicate(BITS)
            row = self.adders.add(m, part, a, mask, Const(flip, BITS), Const(0))
            done.append(row[0])
            part = row[1 : BITS + 1]
        return (Cat(*done, part) ^ (1 << (2 * BITS - 1))).as_signed()
