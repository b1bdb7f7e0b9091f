"""The AXI4-Lite registers and their counters: each access is answered once, and what is read."""

from typing import Any

from amaranth.hdl import Cat, Const, Mux, Signal

from tern_hw.config import Register
from tern_hw.formal.harness import Harness, history
from tern_hw.gateware.registers import COUNTERS

__all__ = ["READ_CYCLES", "CountLaw", "ReadAnswers", "RegisterMemory", "WriteAnswers"]

#: Cycles in which a read is answered: two, and as many more as a counter may wait for its turn.
READ_CYCLES = 2 + len(COUNTERS)
#: Inputs of the register file.
INPUTS = (
    *(f"axil_{name}" for name in ("awaddr", "awprot", "awvalid", "wdata", "wstrb", "wvalid")),
    *(f"axil_{name}" for name in ("bready", "araddr", "arprot", "arvalid", "rready")),
    *("busy", "finished", "counting", "faults", "stalls"),
)


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
