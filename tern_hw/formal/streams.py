"""The blocks that hand things on: packet gate, credits, result unit, AXI4-Lite registers, core."""

from typing import Any

from amaranth.hdl import Cat, Const, Mux, Signal, Value

from tern_hw.config import OutputFormat, Register
from tern_hw.formal.harness import Harness, history

__all__ = [
    "CountLaw",
    "CreditLaw",
    "PacketFrame",
    "ReadAnswers",
    "RegisterMemory",
    "ResultOrder",
    "WriteAnswers",
]


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


class _AxiLite(Harness):
    """A master that keeps the protocol, with everything else free."""

    def master(self) -> None:
        self.free_inputs(*(name for name in dir(self.dut) if name in INPUTS))
        for channel in ("aw", "w", "ar"):
            names = [name for name in INPUTS if name.startswith(f"axil_{channel}")]
            names.remove(f"axil_{channel}valid")
            valid = getattr(self.dut, f"axil_{channel}valid")
            ready = getattr(self.dut, f"axil_{channel}ready")
            payload = Cat(getattr(self.dut, name) for name in names)
            waits = history(self.m, valid & ~ready, 1, f"{channel}_waits")
            before = history(self.m, payload, 1, f"{channel}_payload")
            self.assume(~waits | (valid & (payload == before)))

    def stable(self, valid: Any, ready: Any, payload: Any, name: str) -> None:
        """An answer stays, unchanged, until it is taken."""
        waits = history(self.m, valid & ~ready, 1, f"{name}_waits")
        before = history(self.m, payload, 1, f"{name}_answer")
        self.holds(~waits | (valid & (payload == before)))

    def owed(self, asked: Any, answered: Any, valid: Any, name: str, *, within: int = 1) -> Any:
        """One answer for each request: never more, on offer within so many cycles.

        Return how many are owed.
        """
        owed = Signal(4, name=f"{name}_owed")
        waited = Signal(4, name=f"{name}_waited")
        late = (owed != 0) & ~valid
        self.m.d.sync += [owed.eq(owed + asked - answered), waited.eq(Mux(late, waited + 1, 0))]
        self.holds(~valid | (owed != 0))
        # One may be under way.
        self.holds(owed <= 1)
        self.holds(~late | (waited + 1 < within))
        return owed


#: Cycles in which a read is answered: two, and as many more as a counter may wait for its turn.
READ_CYCLES = 7
#: Inputs of the register file.
INPUTS = (
    *(f"axil_{name}" for name in ("awaddr", "awprot", "awvalid", "wdata", "wstrb", "wvalid")),
    *(f"axil_{name}" for name in ("bready", "araddr", "arprot", "arvalid", "rready")),
    *("busy", "finished", "counting", "faults", "stalls"),
)


class WriteAnswers(_AxiLite):
    """Each write is answered exactly once, OKAY where a register is; none is kept waiting."""

    def state(self) -> None:
        m, dut = self.m, self.dut
        self.master()
        address = dut.axil_awvalid & dut.axil_awready
        data = dut.axil_wvalid & dut.axil_wready
        answered = dut.axil_bvalid & dut.axil_bready
        self.stable(dut.axil_bvalid, dut.axil_bready, dut.axil_bresp, "b")
        # Address and data of one write, in whichever order they are accepted.
        ahead = Signal(4)
        m.d.sync += ahead.eq(ahead + address - data)
        self.holds((ahead == 0) & (address == data))
        self.owed(address, answered, dut.axil_bvalid, "b")
        asks = dut.axil_awvalid & dut.axil_wvalid
        # After a write of N or K, a cycle in which none is taken.
        word = dut.axil_awaddr[2:]
        shapes = address & ((word == Register.N // 4) | (word == Register.K // 4))
        settling = history(m, shapes, 1, "settling")
        self.holds(~(asks & dut.axil_bready) | settling | (address & data))
        mapped = history(m, dut.axil_awaddr < 4 * len(Register), 1, "mapped")
        taken = history(m, address, 1, "taken")
        self.holds(~taken | (dut.axil_bresp == Mux(mapped, 0b00, 0b10)))


class ReadAnswers(_AxiLite):
    """Each read is answered exactly once, SLVERR and 0 where no register is."""

    def state(self) -> None:
        m, dut = self.m, self.dut
        self.master()
        asked = dut.axil_arvalid & dut.axil_arready
        answered = dut.axil_rvalid & dut.axil_rready
        self.stable(dut.axil_rvalid, dut.axil_rready, Cat(dut.axil_rresp, dut.axil_rdata), "r")
        owed = self.owed(asked, answered, dut.axil_rvalid, "r", within=READ_CYCLES)
        self.holds(~dut.axil_arvalid | ((owed != 0) & ~answered) | asked)
        mapped = Signal()
        with m.If(asked):
            m.d.sync += mapped.eq(dut.axil_araddr < 4 * len(Register))
        self.holds(~dut.axil_rvalid | (dut.axil_rresp == Mux(mapped, 0b00, 0b10)))
        self.holds(~dut.axil_rvalid | mapped | (dut.axil_rdata == 0))


class RegisterMemory(_AxiLite):
    """N and K read as written, byte by byte; errors stay until a one is written over them.

    Whatever the counters do: their outputs are free.
    """

    freed = ("*.counters",)

    def state(self) -> None:
        m, dut = self.m, self.dut
        self.master()
        write = dut.axil_awvalid & dut.axil_awready
        word = dut.axil_awaddr[2:]
        strobes = Cat(dut.axil_wstrb[at // 8] for at in range(32))
        asked = Signal(6)
        with m.If(dut.axil_arvalid & dut.axil_arready):
            m.d.sync += asked.eq(dut.axil_araddr[2:])
        # An answer shows what there was in the cycle before it.
        answers = dut.axil_rvalid & ~history(m, dut.axil_rvalid, 1, "answered")
        for register in (Register.N, Register.K):
            kept = Signal(32, name=f"kept_{register.name.lower()}")
            with m.If(write & (word == register // 4)):
                m.d.sync += kept.eq((kept & ~strobes) | (dut.axil_wdata & strobes))
            shown = history(m, kept, 1, f"shown_{register.name.lower()}")
            self.holds(~answers | (asked != register // 4) | (dut.axil_rdata == shown))
        flags = Signal(6)
        clears = write & (word == Register.ERRORS // 4) & dut.axil_wstrb[0]
        m.d.sync += flags.eq((flags & ~Mux(clears, dut.axil_wdata[:6], 0)) | dut.faults)
        shown = history(m, flags, 1, "shown_flags")
        is_errors = asked == Register.ERRORS // 4
        self.holds(~answers | ~is_errors | (dut.axil_rdata[:6] == shown))


class CountLaw(Harness):
    """Each count, after its turn, is that of its events since the last clear, three cycles late."""

    def state(self) -> None:
        m, dut = self.m, self.dut
        self.free_inputs("events", "clear")
        turns = [dut.turn == 1 << at for at in range(self.block.count)]
        before = [history(m, turn, 1, f"turn_{at}") for at, turn in enumerate(turns)]
        begun = history(m, Const(1), 1, "begun")
        for at, turn in enumerate(turns):
            self.holds(~begun | (turn == before[at - 1]))
            counts = [Signal.like(dut.value, name=f"spec_{at}_{late}") for late in range(3)]
            with m.If(dut.clear):
                m.d.sync += [count.eq(0) for count in counts]
            with m.Else():
                m.d.sync += counts[0].eq(counts[0] + dut.events[at])
                m.d.sync += Cat(counts[1:]).eq(Cat(counts[:-1]))
            self.holds(~before[at] | (dut.value == counts[2]))
        self.holds(Cat(turns).any())
