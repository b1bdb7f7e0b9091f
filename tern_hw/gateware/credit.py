"""Credits: how many places or beats are left that nobody has claimed."""

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

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
        `claim` only where `enough`.
    enough : Out
        At least `cost` credits are left.
    """

    def __init__(self, *, limit: int, initial: int, cost: int):
        self.limit = limit
        self.initial = initial
        self.cost = cost
        at_first = int(initial >= cost)
        super().__init__(
            {"start": In(1), "give": In(1), "claim": In(1), "enough": Out(1, init=at_first)}
        )

    def elaborate(self, platform):
        m = Module()
        left = Signal(range(self.limit + 1), init=self.initial)
        # Gifts and claims are known late in the cycle: all answers are ready when they are.
        with m.If(self.start):
            m.d.sync += [left.eq(self.initial), self.enough.eq(self.initial >= self.cost)]
        with m.Else():
            m.d.sync += [
                left.eq(self._after(lambda change: left + change)),
                self.enough.eq(self._after(lambda change: self._covered(left, change))),
            ]
        return m

    def _covered(self, left, change):
        """Return whether credits cover a claim after a change; one gift alone covers one credit."""
        least = self.cost - change
        return left >= least if least > 0 else Const(1)

    def _after(self, value):
        """Return `value` of the change that this cycle's gift and claim make."""
        claimed = Mux(self.give, value(1 - self.cost), value(-self.cost))
        return Mux(self.claim, claimed, Mux(self.give, value(1), value(0)))
