"""One multiply-accumulator by itself, between registers: what an opponent's area is taken of."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.gateware.fp16_mac import Fp16Mac
from tern_hw.gateware.int8_mac import Int8Mac
from tern_hw.gateware.pipeline import delay

__all__ = ["MacLoop"]


class MacLoop(wiring.Component):
    """Feed a multiply-add's sum back to it.

    As in the array, a pipelined one takes turns among `contexts` sums.

    Latency: `latency`, a register in front, the multiply-add, and the sum's register where the
    multiply-add has none. Throughput: a step a cycle. Backpressure: none.

    Members
    -------
    a, b : In
        The multiply-add's.
    first : In
        The step is the first of its sum.
    sum : Out
        The sum so far, `latency` after the step; that of the step `contexts` before, and a * b.
    """

    def __init__(self, mac: Fp16Mac | Int8Mac):
        self.mac = mac
        self.contexts = max(1, mac.loop)
        self.latency = 1 + mac.latency + (mac.loop == 0)
        super().__init__(
            {
                "a": In(mac.a.shape()),
                "b": In(mac.b.shape()),
                "first": In(1),
                "sum": Out(mac.result.shape()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.mac = mac = self.mac
        first = Signal()
        m.d.sync += [mac.a.eq(self.a), mac.b.eq(self.b), first.eq(self.first)]
        begins = delay(m, first, mac.latency - mac.loop, name="first")
        m.d.comb += mac.c.eq(Mux(begins, 0, self.sum))
        held = m.d.comb if mac.loop else m.d.sync
        held += self.sum.eq(mac.result)
        return m
