"""The blocks that hand things on: packet gate, credits, result unit."""

from typing import Any

from amaranth.hdl import Cat, Const, Mux, Signal, Value

from tern_hw.config import OutputFormat
from tern_hw.formal.harness import Harness, history

__all__ = ["CreditLaw", "PacketFrame", "ResultOrder"]


class PacketFrame(Harness):
    """The consumer gets exactly the beats of one packet, each once, and the rest is discarded.

    Open from `start` to an accepted TLAST or the last expected beat; after the latter without a
    TLAST, beats are accepted and dropped up to it.
    """

    def state(self) -> None:
        m, dut = self.m, self.dut
        self.free_inputs("start", "tvalid", "tlast", "take", "final")
        is_open, is_draining = Signal(), Signal()
        accepted = dut.tvalid & dut.tready
        consumed = dut.present & dut.take
        with m.If(dut.start):
            m.d.sync += [is_open.eq(1), is_draining.eq(0)]
        with m.Elif(accepted & dut.tlast):
            m.d.sync += [is_open.eq(0), is_draining.eq(0)]
        with m.Elif(is_open & accepted & dut.final):
            m.d.sync += [is_open.eq(0), is_draining.eq(1)]
        # Nothing is lost and nothing is made up: a beat leaves the stream when it is consumed.
        self.holds(~is_open | (accepted == consumed))
        self.holds(is_open | ~dut.present)
        # A closed gate takes nothing of the next job's packet; a draining one takes all.
        self.holds(dut.tready == (is_draining | (is_open & dut.take)))
        self.holds(dut.closed == ~(is_open | is_draining))
        if dut.has("late"):
            self.holds(dut.late == ((is_open | is_draining) & ~dut.present))
        self.holds(dut.misframed == (is_open & accepted & (dut.tlast != dut.final)))


class CreditLaw(Harness):
    """`backed` exactly where gifts less claims, from `initial` on, are at least `cost`."""

    def state(self) -> None:
        m, dut, block = self.m, self.dut, self.block
        free = [name for name in ("start", "give", "claim", "waive") if dut.has(name)]
        self.free_inputs(*free)
        start, waive = (dut.start if "start" in free else 0), (dut.waive if "waive" in free else 0)
        waived = Signal()
        left = Signal(range(block.limit + block.cost + 1), init=block.initial)
        with m.If(start):
            m.d.sync += [left.eq(block.initial), waived.eq(0)]
        with m.Else():
            m.d.sync += waived.eq(waive)
            m.d.sync += left.eq(left + dut.give - Mux(dut.claim, block.cost, 0))
        # Who claims looks at `backed`; who gives gives back what was claimed, or has a place.
        backed = left >= block.cost
        self.assume(~dut.claim | backed)
        self.assume(~dut.give | (left < block.limit))
        self.holds(dut.enough == (backed | waived))
        if dut.has("backed"):
            self.holds(dut.backed == backed)
        if dut.has("spare"):
            self.holds(~dut.spare | (left < block.limit))
        self.holds(left <= block.limit)


#: Results as the harness tells them apart: binary32 or binary16 of 0 ... 3 units.
def _small_float(units: Any, output: OutputFormat, fraction_bits: int) -> Any:
    """Return the float of 0 to 3 times 2**-fraction_bits; units are 2 bits."""
    mantissa_bits, bias = (23, 127) if output is OutputFormat.FP32 else (10, 15)
    one = (bias - fraction_bits) << mantissa_bits
    if bias - fraction_bits < 1:
        raise ValueError("a unit must be a normal number")
    choices = (0, one, one + (1 << mantissa_bits), one + (3 << (mantissa_bits - 1)))
    value: Any = 0
    for code, word in enumerate(choices):
        value = Mux(units == code, word, value)
    return value


class ResultOrder(Harness):
    """Results leave in order, each once, unchanged while they wait; the last is marked.

    Of all results one is watched, whichever it is: number `watched` in, number `watched` out.
    Totals are 0 to 3 units, for the block does not look at what it carries.
    """

    #: Bits of the counters of results.
    count_bits = 4

    def state(self) -> None:
        m, dut, config = self.m, self.dut, self.block.config
        self.free_inputs("valid", "rows", "last", "nans")
        # NaN for a whole job concerns results that are under way, too.
        m.d.comb += dut.all_nan.eq(0)
        bits = config.accumulator_bits
        units = [self.free(2, f"units_{row}") for row in range(config.rows)]
        m.d.comb += dut.totals.eq(Cat(*(Cat(unit, Const(0, bits - 2)) for unit in units)))
        ready = self.free(1, "ready")
        m.d.comb += dut.results__ready.eq(ready)
        rows = dut.rows
        self.assume(((rows & (rows + 1)) == 0) & rows[0])
        leaves = dut.results__valid & ready
        self._environment(dut, config.rows, leaves)
        self._stable(dut)
        watched = self.chosen(self.count_bits, "watched")
        entered, left = Signal(self.count_bits + 1), Signal(self.count_bits + 1)
        expected, final, seen = Signal(config.result_bits), Signal(), Signal()
        quiet = 0x7FC00000 if config.output is OutputFormat.FP32 else 0x7E00
        count = sum(rows[row] for row in range(config.rows))
        with m.If(dut.valid):
            m.d.sync += entered.eq(entered + count)
            for row in range(config.rows):
                with m.If((entered + row == watched) & rows[row]):
                    value = _small_float(
                        units[row], config.output, config.accumulator_fraction_bits
                    )
                    m.d.sync += [
                        expected.eq(Mux(dut.nans[row], quiet, value)),
                        final.eq(dut.last & (count == row + 1)),
                        seen.eq(1),
                    ]
        with m.If(leaves):
            m.d.sync += left.eq(left + 1)
        payload = Value.cast(dut.results__payload)
        now = leaves & (left == watched)
        self.holds(~now | (seen & (payload == Cat(expected, final))))
        self.holds(left <= entered)
        # The counters do not wrap within the run.
        self.assume(entered < (1 << self.count_bits) - config.rows)

    def _environment(self, dut: Any, rows: int, leaves: Any) -> None:
        """Assume what the senders keep: sums that stay `rows` cycles, and a place for each."""
        m = self.m
        wait = Signal(range(rows + 1))
        places = Signal(range(self.block.depth + 1), init=self.block.depth)
        with m.If(dut.valid):
            m.d.sync += wait.eq(rows - 1)
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        self.assume(~dut.valid | ((wait == 0) & (places >= rows)))
        m.d.sync += places.eq(places + leaves - Mux(dut.valid, rows, 0))
        before = history(m, dut.totals, 1, "totals")
        self.assume((wait == 0) | (dut.totals == before))

    def _stable(self, dut: Any) -> None:
        stalled = history(self.m, dut.results__valid & ~dut.results__ready, 1, "stalled")
        before = history(self.m, dut.results__payload, 1, "payload")
        self.holds(~stalled | (dut.results__valid & (dut.results__payload == before)))
