"""The AXI4-Lite registers: identity, job, control, sticky errors and counters."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
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
from tern_hw.gateware.counters import Counters
from tern_hw.gateware.pipeline import any_of, at_least, delay

__all__ = ["ADDRESS_BITS", "COUNTERS", "STALLS", "RegisterFile", "axi_lite_ports", "group_word"]

#: Width of the AXI4-Lite addresses.
ADDRESS_BITS = 8
#: The stall counters, in the order of `RegisterFile.stalls`.
STALLS = (
    Register.ACTIVATION_STALLS,
    Register.WEIGHT_STALLS,
    Register.SCALE_STALLS,
    Register.RESULT_STALLS,
)
#: What is counted, in the order of `RegisterFile._counters`.
COUNTERS = (Register.CYCLES, *STALLS)
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

    A write is taken when its address and its data are both there, and not in the cycle after one
    to N or K, in which it is found whether the job fits; one write and one read may be under way.
    A read of a counter waits for its turn, a few cycles. An accepted start is `start` one cycle
    after the write.

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
        settling, fits = Signal(), Signal()
        write, write_index = self._write_port(m, settling)
        config = self.config
        n, k = Signal(32), Signal(32)
        last_n, n_fits = _last_index(n, config.max_n)
        last_k, k_fits = _last_index(k, config.max_k)
        shaped = Signal()
        m.d.sync += [settling.eq(shaped), fits.eq(n_fits & k_fits)]
        for register, value in ((Register.N, n), (Register.K, k)):
            with m.If(write & (write_index == register // 4)):
                m.d.comb += shaped.eq(1)
                for byte in range(4):
                    with m.If(self.axil_wstrb[byte]):
                        part = slice(8 * byte, 8 * byte + 8)
                        m.d.sync += value[part].eq(self.axil_wdata[part])

        control = write & (write_index == Register.CONTROL // 4) & self.axil_wstrb[0]
        asked = control & self.axil_wdata[0] & ~self.axil_wdata[1]
        busy = self.busy | self.start
        accepted = asked & ~busy & fits
        m.d.sync += [
            self.start.eq(accepted),
            self.abort.eq(control & self.axil_wdata[1]),
        ]
        with m.If(accepted):
            m.d.sync += [self.last_n.eq(last_n), self.last_k.eq(last_k)]

        done = Signal()
        with m.If(accepted | self.abort):
            m.d.sync += done.eq(0)
        with m.Elif(self.finished):
            m.d.sync += done.eq(1)

        refused = Cat(asked & ~busy & ~fits, asked & busy)
        errors = self._errors(m, write & (write_index == Register.ERRORS // 4), refused)
        self._read_port(
            m,
            {
                Register.STATUS: Cat(busy, done),
                Register.ERRORS: errors,
                Register.N: n,
                Register.K: k,
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
        m.submodules.counters = counters = Counters(len(COUNTERS))
        # All a cycle late: what decides whether an event happens is a long path already.
        events = Cat(self.counting, self.stalls)
        m.d.comb += [
            counters.events.eq(delay(m, events, 1, name="events")),
            counters.clear.eq(delay(m, self.start, 1, name="start")),
        ]
        return counters

    def _write_port(self, m, settling):
        """Return (a write happens, word address); none happens while `settling`."""
        index = self.axil_awaddr[2:]
        write = Signal()
        free = (~self.axil_bvalid | self.axil_bready) & ~settling
        m.d.comb += [
            write.eq(self.axil_awvalid & self.axil_wvalid & free),
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

    def _read_port(self, m, variables):
        """Answer reads: of a constant, of one of `variables`, or of the counter whose turn it is.

        What is chosen by is ready a cycle before the choice, so that this is two LUT4 a bit.
        """
        counters = self._counters(m)
        index = self.axil_araddr[2:]
        asked, waits_for, mapped = Signal(), Signal(len(COUNTERS)), Signal()
        constant = Signal(32)
        enables = {
            register: Signal(name=f"reads_{register.name.lower()}") for register in variables
        }
        counted, hit = Signal(), Signal()
        read = self.axil_arvalid & self.axil_arready
        due = asked & (~counted | hit)
        m.d.sync += hit.eq(asked & (waits_for & counters.turn).any())
        m.d.comb += self.axil_arready.eq(~asked & (~self.axil_rvalid | self.axil_rready))
        with m.If(read):
            m.d.sync += [
                asked.eq(1),
                mapped.eq(index < len(Register)),
                counted.eq((index >= COUNTERS[0] // 4) & (index < len(Register))),
                waits_for.eq(Cat(index == register // 4 for register in COUNTERS)),
            ]
            m.d.sync += [enables[each].eq(index == each // 4) for each in variables]
            with m.Switch(index):
                for register, word in constants(self.config).items():
                    with m.Case(register // 4):
                        m.d.sync += constant.eq(word)
                with m.Default():
                    m.d.sync += constant.eq(0)
        with m.Elif(due):
            m.d.sync += asked.eq(0)
        choices = [(enables[register], value) for register, value in variables.items()]
        choices += [(counted, counters.value)]
        with m.If(due):
            m.d.sync += [
                self.axil_rvalid.eq(1),
                self.axil_rresp.eq(Mux(mapped, OKAY, SLVERR)),
                self.axil_rdata.eq(any_of(choices) | constant),
            ]
        with m.Elif(self.axil_rready):
            m.d.sync += self.axil_rvalid.eq(0)


def _last_index(count: Value, most: int) -> tuple[Value, Value]:
    """Return (count - 1, whether count is of 1 ... most); 0 less 1 is beyond any of them."""
    bits = most.bit_length()
    last = (count[:bits] - 1)[:bits]
    return last, ~count[bits:].any() & ~at_least(last, most)


def constants(config: ArrayConfig) -> dict[Register, int]:
    """Return what the registers read that never change."""
    return {
        Register.ID: ARRAY_ID,
        Register.VERSION: REGISTER_VERSION,
        Register.ARRAY: array_word(config),
        Register.GROUP: group_word(config),
        Register.MAX_K: config.max_k,
        Register.MAX_N: config.max_n,
    }


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
