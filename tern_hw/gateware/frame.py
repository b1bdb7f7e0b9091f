"""One job's packet on an input stream: passes its beats on, and mends a TLAST that is wrong."""

from amaranth.hdl import Module, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["PacketGate", "packet_gate"]


class State(enum.Enum, shape=2):
    """What the gate knows of the packet; bit 0 says "not open", bit 1 "not closed"."""

    #: No packet is due, or all of it was taken.
    CLOSED = 1
    #: Beats go through.
    OPEN = 2
    #: All expected beats were taken without a TLAST: what comes is discarded up to it.
    DRAIN = 3


class PacketGate(wiring.Component):
    """Let the beats of one packet through, from `start` to TLAST.

    Latency: 0. Throughput: a beat a cycle. Backpressure: `take` is the consumer's ready.

    Members
    -------
    start : In
        A job begins: a packet is due from the next cycle on.
    tvalid, tlast : In, tready : Out
        Handshake of the AXI4-Stream; its data goes past the gate.
    take : In
        The consumer takes the beat, if there is one. Must not depend on `tvalid`.
    final : In
        The next beat is the last one expected.
    present : Out
        A beat is there.
    closed : Out
        No beat will come any more in this job.
    misframed : Out
        TLAST was early or late; for one cycle.
    """

    def __init__(self):
        super().__init__(
            {
                "start": In(1),
                "tvalid": In(1),
                "tlast": In(1),
                "tready": Out(1),
                "take": In(1),
                "final": In(1),
                "present": Out(1),
                "closed": Out(1),
                "misframed": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        state = Signal(State, init=State.CLOSED)
        # One bit of the code each, as much depends on them within the cycle.
        is_open, is_closed = ~state.as_value()[0], ~state.as_value()[1]
        is_drain = state == State.DRAIN
        m.d.comb += [
            self.tready.eq((is_open & self.take) | is_drain),
            self.present.eq(is_open & self.tvalid),
            self.closed.eq(is_closed),
        ]
        taken = self.tvalid & self.tready
        m.d.comb += self.misframed.eq(taken & is_open & (self.tlast != self.final))
        with m.If(self.start):
            m.d.sync += state.eq(State.OPEN)
        with m.Elif(taken & self.tlast):
            m.d.sync += state.eq(State.CLOSED)
        with m.Elif(taken & is_open & self.final):
            m.d.sync += state.eq(State.DRAIN)
        return m


def packet_gate(m: Module, core: wiring.Component, name: str) -> PacketGate:
    """Put a gate on one of a core's input streams, opened by the core's start."""
    m.submodules[f"{name}_gate"] = gate = PacketGate()
    m.d.comb += [
        gate.start.eq(core.start),
        gate.tvalid.eq(getattr(core, f"{name}_tvalid")),
        gate.tlast.eq(getattr(core, f"{name}_tlast")),
        getattr(core, f"{name}_tready").eq(gate.tready),
    ]
    return gate
