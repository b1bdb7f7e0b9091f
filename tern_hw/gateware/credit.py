"""Credits: how many places or beats are left that nobody has claimed."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.gateware.pipeline import at_least

__all__ = ["CreditCounter"]


class CreditCounter(wiring.Component):
    """Count credits given one at a time and claimed `cost` at a time.

    Latency: 1 (a credit given can be claimed in the next cycle). Throughput: one gift and one
    claim a cycle.

    Members
    -------
    start : In
        Go back to `initial` credits.
    give, claim : In
        `claim` only where `backed`.
    waive : In
        From the next cycle on `enough`, whatever is left.
    enough : Out
        At least `cost` credits are left, or are not asked for.
    backed : Out
        They are left.
    spare : Out
        One more may be given: fewer than `limit` are left. It is told again only when a claim has
        been counted, two cycles after it.
    """

    def __init__(self, *, limit: int, initial: int, cost: int):
        self.limit = limit
        self.initial = initial
        self.cost = cost
        at_first = int(initial >= cost)
        super().__init__(
            {
                "start": In(1),
                "give": In(1),
                "claim": In(1),
                "waive": In(1),
                "enough": Out(1, init=at_first),
                "backed": Out(1, init=at_first),
                "spare": Out(1, init=int(initial < limit)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # A claim is known late in the cycle: it is counted in the next one, and what it leaves
        # is looked at beforehand, both with it and without.
        left = Signal(range(self.limit + 1), init=self.initial)
        claimed = Signal()
        backed = Mux(self.claim, self._covers(left, claimed, 2), self._covers(left, claimed, 1))
        with m.If(self.start):
            m.d.sync += [
                left.eq(self.initial),
                claimed.eq(0),
                self.backed.eq(self.initial >= self.cost),
                self.enough.eq(self.initial >= self.cost),
                self.spare.eq(self.initial < self.limit),
            ]
        with m.Else():
            m.d.sync += [
                left.eq(left + self.give - Mux(claimed, self.cost, 0)),
                claimed.eq(self.claim),
                self.backed.eq(backed),
                self.enough.eq(backed | self.waive),
                self.spare.eq(~at_least(left, self.limit - 1)),
            ]
        return m

    def _covers(self, left, claimed, claims):
        """Return whether credits, with this cycle's gift, cover so many claims; no sum is built."""

        def least(count):
            return Mux(self.give, at_least(left, count - 1), at_least(left, count))

        return Mux(claimed, least((claims + 1) * self.cost), least(claims * self.cost))
