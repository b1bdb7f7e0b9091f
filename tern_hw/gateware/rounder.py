"""The one rounding: a long two's-complement integer to binary32 or binary16, to nearest even."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig, OutputFormat
from tern_hw.gateware.pipeline import delay

__all__ = ["Rounder"]


def shift_stages(width: int) -> list[list[int]]:
    """Return the left shifts that normalise a value of some width, those of one cycle together.

    The wider a shift, the deeper the test for zeros before it.
    """
    places = (width - 1).bit_length()
    shifts = [1 << place for place in reversed(range(places))]
    return [[shift] for shift in shifts[:-5]] + [shifts[-5:-3], shifts[-3:]]


class Rounder(wiring.Component):
    """Round `total` * 2**-accumulator_fraction_bits once.

    Overflow gives infinity, an exact zero +0, a negative value that rounds to zero -0;
    subnormal results are exact to their last place (IEEE 754-2019, 4.3.1 and 7.4).

    Latency: `latency` = `config.rounder_cycles`. Throughput: a value a cycle. Backpressure: none.

    Members
    -------
    total : In, signed(accumulator_bits)
    nan : In
        Give the canonical NaN instead.
    result : Out, result_bits
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.latency = config.rounder_cycles
        super().__init__(
            {
                "total": In(signed(config.accumulator_bits)),
                "nan": In(1),
                "result": Out(config.result_bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        fraction_bits, exponent_bits = (
            (23, 8) if self.config.output is OutputFormat.FP32 else (10, 5)
        )
        self.fraction_bits, self.exponent_bits = fraction_bits, exponent_bits
        bias = (1 << (exponent_bits - 1)) - 1
        # Cycle 1: sign and magnitude; the accumulator is never the most negative integer.
        width = self.config.accumulator_bits - 1
        sign = Signal()
        magnitude = Signal(width)
        negative = self.total[-1]
        m.d.sync += [
            sign.eq(negative),
            magnitude.eq(Mux(negative, -self.total, self.total)),
        ]
        # Cycle 2: where the exponent would fall below the smallest, a bit that stops the shift.
        top_exponent = width - 1 - self.config.accumulator_fraction_bits + bias
        guarded, subnormal = self._guard(m, magnitude, width - top_exponent)
        normal, shift, cycles = self._normalise(m, guarded)
        # The cycle before the last: what is rounded, and how.
        top = normal[-1] & ~delay(m, subnormal, cycles, name="subnormal")
        significand = normal[-fraction_bits - 1 :]
        guard, sticky = normal[-fraction_bits - 2], normal[: -fraction_bits - 2].any()
        exponent = Signal(signed(max(exponent_bits, top_exponent.bit_length()) + 2))
        fraction = Signal(fraction_bits)
        normal_now, round_up = Signal(), Signal()
        m.d.sync += [
            exponent.eq(top_exponent - shift),
            fraction.eq(significand[:-1]),
            normal_now.eq(top),
            round_up.eq(guard & (sticky | significand[0])),
        ]
        # The last: round and pack; a carry out of the fraction raises the exponent by itself.
        sign_now = delay(m, sign, cycles + 2, name="sign")
        nan_now = delay(m, self.nan, cycles + 3, name="nan")
        body = self._body(exponent, normal_now, fraction, round_up)
        quiet_nan = self._infinity | 1 << (fraction_bits - 1)
        m.d.sync += self.result.eq(Mux(nan_now, quiet_nan, Cat(body, sign_now)))
        return m

    @property
    def _infinity(self) -> int:
        return ((1 << self.exponent_bits) - 1) << self.fraction_bits

    def _guard(self, m, magnitude, sentinel):
        """Return the magnitude, with the stopping bit where that would be the first; whether."""
        guarded, subnormal = Signal.like(magnitude), Signal()
        stops = ~magnitude[sentinel:].any() if 0 <= sentinel < len(magnitude) else 0
        m.d.sync += [guarded.eq(magnitude), subnormal.eq(stops)]
        if 0 <= sentinel < len(magnitude):
            m.d.sync += guarded[sentinel].eq(magnitude[sentinel] | stops)
        return guarded, subnormal

    @staticmethod
    def _normalise(m, value):
        """Return (value with its first one on top, shift, cycles that this takes)."""
        stages = shift_stages(len(value))
        shift: list = []
        for at, shifts in enumerate(stages):
            decisions: list = []
            for places in shifts:
                empty = Signal(name=f"empty_{places}")
                m.d.comb += empty.eq(~value[-places:].any())
                value = Mux(empty, value << places, value)[: len(value)]
                decisions.insert(0, empty)
            value_now = Signal(len(value), name=f"normal_{at}")
            m.d.sync += value_now.eq(value)
            value = value_now
            # The bits decided now stand below those decided before.
            bits = [*decisions, *shift]
            shift = [Signal(name=f"shift_{at}_{bit}") for bit in range(len(bits))]
            m.d.sync += [now.eq(bit) for now, bit in zip(shift, bits, strict=True)]
        return value, Cat(*shift), len(stages)

    def _body(self, exponent, normal, fraction, round_up):
        """Return exponent and fraction, rounded; infinity where it overflows."""
        field = Mux(normal, exponent[: self.exponent_bits], 0)
        rounded = Cat(fraction, field) + round_up
        overflow = normal & (exponent >= (1 << self.exponent_bits) - 1)
        return Mux(overflow, self._infinity, rounded)[: self.fraction_bits + self.exponent_bits]
