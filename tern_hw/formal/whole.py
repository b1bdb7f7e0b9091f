"""The whole array as it is emitted: what its registers and its result stream keep."""

from typing import Any

from amaranth.hdl import Cat, Mux, Signal, Value

from tern_hw.config import Register
from tern_hw.formal.harness import Harness, history
from tern_hw.gateware.registers import COUNTERS

__all__ = ["CounterSteps", "ResultStall"]

#: Inputs of the array, beside those of the AXI4-Lite.
STREAM_INPUTS = (
    *(f"s_axis_{name}_t{part}" for name in ("activation", "weight", "scale")
      for part in ("data", "valid", "last")),
    "m_axis_result_tready",
)  # fmt: skip
AXI_LITE_INPUTS = (
    *(f"s_axil_{name}" for name in ("awaddr", "awprot", "awvalid", "wdata", "wstrb", "wvalid")),
    *(f"s_axil_{name}" for name in ("bready", "arprot")),
)


class CounterSteps(Harness):
    """A counter that is read again and again goes up by a cycle a cycle at most; all 32 bits.

    Or it began anew in between. Whatever the core does: its outputs are free.
    """

    freed = ("*.core",)

    def state(self) -> None:
        m, dut = self.m, self.dut
        self.free_inputs(*STREAM_INPUTS, *AXI_LITE_INPUTS)
        which = self.chosen(3, "which")
        address: Any = 0
        for index, register in enumerate(COUNTERS):
            address = Mux(which == index, int(register), address)
        m.d.comb += [dut.s_axil_araddr.eq(address), dut.s_axil_arvalid.eq(1)]
        m.d.comb += dut.s_axil_rready.eq(1)
        self.assume(which < len(COUNTERS))
        now, before, cycles, known = dut.s_axil_rdata, Signal(32), Signal(4), Signal()
        m.d.sync += cycles.eq(cycles + 1)
        with m.If(dut.s_axil_rvalid):
            m.d.sync += [before.eq(now), cycles.eq(1), known.eq(1)]
        rise = (now - before)[:32]
        self.holds(~(known & dut.s_axil_rvalid) | (rise <= cycles) | (now <= cycles))


class ResultStall(Harness):
    """A result that is not taken stays, unchanged, unless the array is reset by an abort."""

    def state(self) -> None:
        m, dut = self.m, self.dut
        self.free_inputs(*STREAM_INPUTS, *AXI_LITE_INPUTS)
        self.free_inputs("s_axil_araddr", "s_axil_arvalid", "s_axil_rready")
        payload = Cat(dut.m_axis_result_tdata, dut.m_axis_result_tlast)
        waits = history(m, dut.m_axis_result_tvalid & ~dut.m_axis_result_tready, 1, "waits")
        before = history(m, payload, 1, "before")
        # An abort is bit 1 of a write to CONTROL; it acts in the cycle after.
        control = Value.cast(dut.s_axil_awaddr)[2:] == Register.CONTROL // 4
        aborts = Signal()
        m.d.comb += aborts.eq(dut.s_axil_awready & control & dut.s_axil_wdata[1])
        aborted = history(m, aborts & dut.s_axil_wstrb[0], 2, "aborted")
        kept = dut.m_axis_result_tvalid & (payload == before)
        self.holds(~waits | aborted | kept)
