"""One job's packet on an input stream: passes its beats on, and mends a TLAST that is wrong."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["PacketGate", "packet_gate"]


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
    late : Out
        A beat will come, and is not there.
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
                "late": Out(1),
                "closed": Out(1),
                "misframed": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Open: beats go through. Closed: no packet is due, or all of it was taken. Neither: all
        # expected beats were taken without a TLAST, and what comes is discarded up to it.
        # Gates in place of choices, as much depends on these within the cycle.
        closed = Signal(init=1)
        not_open = Signal(init=1)
        ends = self.tvalid & self.tlast
        m.d.comb += [
            self.tready.eq(Mux(not_open, ~closed, self.take)),
            self.present.eq(~not_open & self.tvalid),
            self.late.eq(~closed & ~(~not_open & self.tvalid)),
            self.closed.eq(closed),
            self.misframed.eq(~not_open & self.take & self.tvalid & (self.tlast != self.final)),
        ]
        m.d.sync += [
            not_open.eq(
                ~self.start & (not_open | (self.take & (self.tvalid & (self.tlast | self.final))))
            ),
            closed.eq(~self.start & (closed | (ends & (not_open | self.take)))),
        ]
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
