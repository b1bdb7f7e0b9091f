"""The accelerator as it is emitted: the array's core behind AXI4-Lite registers."""

from amaranth.hdl import Module, ResetInserter
from amaranth.lib import wiring

from tern_hw.config import ArrayConfig, Weights
from tern_hw.gateware.core import ArrayCore
from tern_hw.gateware.mac_core import MacCore
from tern_hw.gateware.registers import RegisterFile, axi_lite_ports
from tern_hw.gateware.streams import axi_stream_ports

__all__ = ["TernaryArray"]


class TernaryArray(wiring.Component):
    """The matrix-vector accelerator with flat AXI port names; with binary16 weights its opponent.

    Latency: `core.latency`; a whole job takes `config.job_cycles(n, k)` while nothing stalls.
    Throughput: `lanes` x `rows` weights a cycle. Backpressure: on every stream.

    Members
    -------
    s_axis_activation_*, s_axis_weight_* : AXI4-Stream in
    s_axis_scale_* : AXI4-Stream in, with ternary weights alone
    m_axis_result_* : AXI4-Stream out
    s_axil_* : AXI4-Lite, registers of `tern_hw.config.Register`
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        ternary = config.weights is Weights.TERNARY
        self.core = ArrayCore(config) if ternary else MacCore(config)
        ports = axi_lite_ports("s_axil_")
        for name in config.input_streams:
            bits = 8 * getattr(config, f"{name}_beat_bytes")
            ports |= axi_stream_ports(f"s_axis_{name}", bits, source=False)
        ports |= axi_stream_ports("m_axis_result", config.result_bits, source=True)
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = RegisterFile(self.config)
        core = self.core
        m.submodules.core = ResetInserter(registers.abort)(core)
        for name in axi_lite_ports(""):
            port, inner = getattr(self, f"s_axil_{name}"), getattr(registers, f"axil_{name}")
            m.d.comb += port.eq(inner) if name in SLAVE_DRIVES else inner.eq(port)
        for name in self.config.input_streams:
            for part in ("tdata", "tvalid", "tlast"):
                port = getattr(self, f"s_axis_{name}_{part}")
                m.d.comb += getattr(core, f"{name}_{part}").eq(port)
            ready = getattr(self, f"s_axis_{name}_tready")
            m.d.comb += ready.eq(getattr(core, f"{name}_tready"))
        for part in ("tdata", "tvalid", "tlast"):
            m.d.comb += getattr(self, f"m_axis_result_{part}").eq(getattr(core, f"result_{part}"))
        m.d.comb += core.result_tready.eq(self.m_axis_result_tready)
        for name in ("start", "last_n", "last_k"):
            m.d.comb += getattr(core, name).eq(getattr(registers, name))
        for name in ("busy", "finished", "counting", "faults", "stalls"):
            m.d.comb += getattr(registers, name).eq(getattr(core, name))
        return m


#: What the slave drives on an AXI4-Lite.
SLAVE_DRIVES = frozenset(
    ("awready", "wready", "bresp", "bvalid", "arready", "rdata", "rresp", "rvalid")
)
