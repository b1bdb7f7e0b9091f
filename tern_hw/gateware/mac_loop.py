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

    As in the array, a pipelined one takes turns among `contexts` sums. Where it has no register of
    its own, sums restart by a reset, as those of `GroupDot` do: a second register, and no LUTs.

    Latency: `latency`, a register in front, the multiply-add, and the sum's register where the
    multiply-add has none. Throughput: a step a cycle. Backpressure: none.

    Members
    -------
    a, b : In
        The multiply-add's.
    last : In
        The step is the last of its sum; that of the step `contexts` later begins at 0.
    sum : Out
        The sum so far, `latency` after the step.
    """

    def __init__(self, mac: Fp16Mac | Int8Mac):
        if not mac.loop and mac.latency:
            raise ValueError(f"registers must be 0, or one in the loop, not {mac.latency}")
        self.mac = mac
        self.contexts = max(1, mac.loop)
        self.latency = 1 + mac.latency + (mac.loop == 0)
        super().__init__(
            {
                "a": In(mac.a.shape()),
                "b": In(mac.b.shape()),
                "last": In(1),
                "sum": Out(mac.result.shape()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.mac = mac = self.mac
        last = Signal()
        m.d.sync += [mac.a.eq(self.a), mac.b.eq(self.b), last.eq(self.last)]
        over = delay(m, last, mac.latency, name="last")
        if mac.loop:
            m.d.comb += [self.sum.eq(mac.result), mac.c.eq(Mux(over, 0, self.sum))]
        else:
            m.d.sync += [self.sum.eq(mac.result), mac.c.eq(mac.result)]
            with m.If(over):
                m.d.sync += mac.c.eq(0)
        return m
