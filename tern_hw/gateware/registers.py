"""The AXI4-Lite registers: identity, job, control, sticky errors and counters."""

from amaranth.hdl import Array, C, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import (
    ARRAY_ID,
    REGISTER_VERSION,
    Activation,
    ArrayConfig,
    ErrorFlag,
    OutputFormat,
    Packing,
    Register,
    Weights,
)
from tern_hw.gateware.pipeline import delay

__all__ = ["ADDRESS_BITS", "STALLS", "RegisterFile", "axi_lite_ports", "group_word"]

#: Width of the AXI4-Lite addresses.
ADDRESS_BITS = 8
#: The stall counters, in the order of `RegisterFile.stalls`.
STALLS = (
    Register.ACTIVATION_STALLS,
    Register.WEIGHT_STALLS,
    Register.SCALE_STALLS,
    Register.RESULT_STALLS,
)
OKAY, SLVERR = 0b00, 0b10


def axi_lite_ports(prefix: str) -> dict:
    """Return the members of an AXI4-Lite slave (AMBA IHI 0022, B1), seen from the slave."""
    ports = {
        "awaddr": In(ADDRESS_BITS),
        "awprot": In(3),
        "awvalid": In(1),
        "awready": Out(1),
        "wdata": In(32),
        "wstrb": In(4),
        "wvalid": In(1),
        "wready": Out(1),
        "bresp": Out(2),
        "bvalid": Out(1),
        "bready": In(1),
        "araddr": In(ADDRESS_BITS),
        "arprot": In(3),
        "arvalid": In(1),
        "arready": Out(1),
        "rdata": Out(32),
        "rresp": Out(2),
        "rvalid": Out(1),
        "rready": In(1),
    }
    return {f"{prefix}{name}": flow for name, flow in ports.items()}


class RegisterFile(wiring.Component):
    """Registers of `tern_hw.config.Register`; an unmapped address answers SLVERR.

    A write is taken when its address and its data are both there; one write and one read may
    be under way. An accepted start is `start` one cycle after the write.

    Members
    -------
    axil_* : AXI4-Lite
    start : Out
        Begin a job; for one cycle.
    last_n, last_k : Out
        Indices of its last output and input, stable until the next start.
    abort : Out
        Drop everything; for one cycle.
    busy : In
    finished : In
        The job ended; for one cycle.
    counting : In
        The cycle belongs to the job's time; counted in the next, as a stall is.
    faults : In
        `ErrorFlag`s 0 to 5, each set for one cycle.
    stalls : In, 4
        Order of `STALLS`.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        super().__init__(
            {
                **axi_lite_ports("axil_"),
                "start": Out(1),
                "abort": Out(1),
                "last_n": Out(config.max_n.bit_length()),
                "last_k": Out(config.max_k.bit_length()),
                "busy": In(1),
                "finished": In(1),
                "counting": In(1),
                "faults": In(6),
                "stalls": In(len(STALLS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        write, write_index = self._write_port(m)
        config = self.config
        n, k = Signal(32), Signal(32)
        for register, value in ((Register.N, n), (Register.K, k)):
            with m.If(write & (write_index == register // 4)):
                for byte in range(4):
                    with m.If(self.axil_wstrb[byte]):
                        part = slice(8 * byte, 8 * byte + 8)
                        m.d.sync += value[part].eq(self.axil_wdata[part])

        control = write & (write_index == Register.CONTROL // 4) & self.axil_wstrb[0]
        asked = control & self.axil_wdata[0] & ~self.axil_wdata[1]
        busy = self.busy | self.start
        fits = (n != 0) & (n <= config.max_n) & (k != 0) & (k <= config.max_k)
        accepted = asked & ~busy & fits
        m.d.sync += [
            self.start.eq(accepted),
            self.abort.eq(control & self.axil_wdata[1]),
        ]
        with m.If(accepted):
            m.d.sync += [self.last_n.eq(n - 1), self.last_k.eq(k - 1)]

        done = Signal()
        with m.If(accepted | self.abort):
            m.d.sync += done.eq(0)
        with m.Elif(self.finished):
            m.d.sync += done.eq(1)

        refused = Cat(asked & ~busy & ~fits, asked & busy)
        errors = self._errors(m, write & (write_index == Register.ERRORS // 4), refused)
        counters = self._counters(m)
        self._read_port(
            m,
            {
                Register.ID: C(ARRAY_ID, 32),
                Register.VERSION: C(REGISTER_VERSION, 32),
                Register.ARRAY: C(array_word(config), 32),
                Register.GROUP: C(group_word(config), 32),
                Register.MAX_K: C(config.max_k, 32),
                Register.MAX_N: C(config.max_n, 32),
                Register.CONTROL: C(0, 32),
                Register.STATUS: Cat(busy, done),
                Register.ERRORS: errors,
                Register.N: n,
                Register.K: k,
                **counters,
            },
        )
        return m

    def _errors(self, m, write, refused):
        errors = Signal(len(ErrorFlag))
        clear = Signal.like(errors)
        with m.If(write & self.axil_wstrb[0]):
            m.d.comb += clear.eq(self.axil_wdata)
        m.d.sync += errors.eq((errors & ~clear) | Cat(self.faults, refused))
        return errors

    def _counters(self, m):
        # All a cycle late: what decides whether an event happens is a long path already.
        start_1 = delay(m, self.start, 1, name="start")
        events = {Register.CYCLES: self.counting}
        events |= {register: self.stalls[at] for at, register in enumerate(STALLS)}
        counters = {}
        for register, event in events.items():
            counter = Signal(32, name=register.name.lower())
            event_1 = delay(m, event, 1, name=f"{register.name.lower()}_event")
            with m.If(start_1):
                m.d.sync += counter.eq(0)
            with m.Else():
                m.d.sync += counter.eq(counter + event_1)
            counters[register] = counter
        return counters

    def _write_port(self, m):
        """Return (a write happens, word address)."""
        index = self.axil_awaddr[2:]
        write = Signal()
        m.d.comb += [
            write.eq(self.axil_awvalid & self.axil_wvalid & (~self.axil_bvalid | self.axil_bready)),
            self.axil_awready.eq(write),
            self.axil_wready.eq(write),
        ]
        with m.If(write):
            m.d.sync += [
                self.axil_bvalid.eq(1),
                self.axil_bresp.eq(Mux(index < len(Register), OKAY, SLVERR)),
            ]
        with m.Elif(self.axil_bready):
            m.d.sync += self.axil_bvalid.eq(0)
        return write, index

    def _read_port(self, m, values):
        index = self.axil_araddr[2:]
        words = Array(values[register] for register in Register)
        word = words[index[: (len(Register) - 1).bit_length()]]
        read = Signal()
        m.d.comb += [
            read.eq(self.axil_arvalid & (~self.axil_rvalid | self.axil_rready)),
            self.axil_arready.eq(read),
        ]
        mapped = index < len(Register)
        with m.If(read):
            m.d.sync += [
                self.axil_rvalid.eq(1),
                self.axil_rresp.eq(Mux(mapped, OKAY, SLVERR)),
                self.axil_rdata.eq(Mux(mapped, word, 0)),
            ]
        with m.Elif(self.axil_rready):
            m.d.sync += self.axil_rvalid.eq(0)


def array_word(config: ArrayConfig) -> int:
    """Return what `Register.ARRAY` reads."""
    return (
        config.lanes
        | config.rows << 16
        | (config.activation is Activation.FP16) << 24
        | (config.packing is Packing.BASE3) << 25
        | (config.output is OutputFormat.FP16) << 26
        | (config.weights is Weights.FP16) << 27
    )


def group_word(config: ArrayConfig) -> int:
    """Return what `Register.GROUP` reads: 0 where the group is the row, or where there is none."""
    ternary = config.weights is Weights.TERNARY
    group = config.group_size if ternary and config.group_size != "row" else 0
    return group | (config.aligned or 0) << 24
