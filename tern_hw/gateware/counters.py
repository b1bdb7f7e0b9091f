"""Counters of events that share one adder, as they are read seldom and one at a time."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.gateware.pipeline import any_of

__all__ = ["Counters"]


class Counters(wiring.Component):
    """Count events, modulo 2**bits.

    The counts go round in a ring of registers, past one adder: a count's turn comes every `count`
    cycles, and what happened since its last one, a few bits, is added then. An adder for each, and
    a place for each in the choice of what is read, would be three times as large.

    Latency: an event is in `value` from three cycles later on. Throughput: each event, each cycle.
    Backpressure: none.

    Members
    -------
    events : In, count
        Each is counted by itself.
    clear : In
        All counts become 0; the events of this cycle are in none.
    turn : Out, count
        The one whose turn it is, one-hot.
    value : Out, bits
        The count whose turn it was a cycle ago.
    """

    def __init__(self, count: int, *, bits: int = 32):
        self.count = count
        super().__init__(
            {"events": In(count), "clear": In(1), "turn": Out(count, init=1), "value": Out(bits)}
        )

    def elaborate(self, platform):
        m = Module()
        # The next turn; a ring that finds its way back to one-hot from any state. A cycle before a
        # count's turn, what is to be added is taken.
        taken = Signal(self.count)
        m.d.comb += taken.eq(Cat(~self.turn[:-1].any(), self.turn[:-1]))
        m.d.sync += self.turn.eq(taken)
        recent = [Signal(range(self.count + 1), name=f"recent_{at}") for at in range(self.count)]
        addend = Signal.like(recent[0])
        ring = [Signal.like(self.value, name=f"count_{at}") for at in range(self.count)]
        m.d.comb += self.value.eq(ring[0])
        with m.If(self.clear):
            m.d.sync += [each.eq(0) for each in (*ring, addend, *recent)]
        with m.Else():
            m.d.sync += addend.eq(any_of(zip(taken, recent, strict=True)))
            m.d.sync += [ring[0].eq(ring[-1] + addend), Cat(ring[1:]).eq(Cat(ring[:-1]))]
            for event, takes, since in zip(self.events, taken, recent, strict=True):
                m.d.sync += since.eq(Mux(takes, event, since + event))
        return m
