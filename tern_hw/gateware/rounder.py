"""The one rounding: a long two's-complement integer to binary32 or binary16, to nearest even."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig, OutputFormat
from tern_hw.gateware.pipeline import delay, index_bits

__all__ = ["Rounder"]


class Rounder(wiring.Component):
    """Round `total` * 2**-accumulator_fraction_bits once.

    Overflow gives infinity, an exact zero +0, a negative value that rounds to zero -0;
    subnormal results are exact to their last place (IEEE 754-2019, 4.3.1 and 7.4).

    Latency: `latency`: sign and magnitude, a cycle for each halving of the search for the leading
    one, two for the rounding. Throughput: a value a cycle. Backpressure: none.

    Members
    -------
    total : In, signed(accumulator_bits)
    nan : In
        Give the canonical NaN instead.
    result : Out, result_bits
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.latency = config.rounding_cycles
        self.fraction_bits, self.exponent_bits = (
            (23, 8) if config.output is OutputFormat.FP32 else (10, 5)
        )
        # The accumulator is never the most negative integer.
        self.width = config.accumulator_bits - 1
        bias = (1 << (self.exponent_bits - 1)) - 1
        #: Exponent field of a value whose highest magnitude bit is set.
        self.top_exponent = self.width - 1 - config.accumulator_fraction_bits + bias
        super().__init__(
            {
                "total": In(signed(config.accumulator_bits)),
                "nan": In(1),
                "result": Out(config.result_bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        negative = self.total[-1]
        magnitude = Signal(self.width)
        m.d.sync += magnitude.eq(Mux(negative, -self.total, self.total))
        normal, shift = self._normalise(m, magnitude)
        body, overflow = self._round(m, normal, shift)
        sign = delay(m, negative, self.latency - 1, name="sign")
        nan = delay(m, self.nan, self.latency - 1, name="nan")
        infinity = ((1 << self.exponent_bits) - 1) << self.fraction_bits
        quiet_nan = infinity | 1 << (self.fraction_bits - 1)
        finite = Cat(Mux(overflow, infinity, body), sign)
        m.d.sync += self.result.eq(Mux(nan, quiet_nan, finite))
        return m

    def _normalise(self, m, value):
        """Return (the value shifted to the left, by how much): as far as it has zeros on top.

        It stops where the exponent would fall below the smallest: what stays there is subnormal.
        """
        levels = (self.width - 1).bit_length()
        shift = Signal(index_bits(1 << levels))
        for level in reversed(range(levels)):
            step = 1 << level
            moved = Signal(self.width, name=f"normal_{level}")
            shift_now = Signal.like(shift, name=f"shift_{level}")
            go = Signal(name=f"go_{level}")
            # The smallest exponent is 1, that of `top_exponent` - 1 places.
            within = shift <= self.top_exponent - 1 - step if self.top_exponent > step else 0
            m.d.comb += go.eq(~value[-step:].any() & within)
            m.d.sync += [
                moved.eq(Mux(go, value << step, value)),
                shift_now.eq(shift | (go << level)),
            ]
            value, shift = moved, shift_now
        return value, shift

    def _round(self, m, normal, shift):
        """Return (exponent and fraction, whether they overflow) of a normalised value."""
        fraction_bits = self.fraction_bits
        limit = (1 << self.exponent_bits) - 1
        exponent = Signal(signed(max(self.exponent_bits, self.top_exponent.bit_length()) + 2))
        m.d.comb += exponent.eq(self.top_exponent - shift)
        significand = normal[-fraction_bits - 1 :]
        guard, sticky = normal[-fraction_bits - 2], normal[: -fraction_bits - 2].any()
        field = Signal(self.exponent_bits)
        truncated = Signal(self.exponent_bits + fraction_bits)
        round_up, overflow = Signal(), Signal()
        m.d.comb += field.eq(Mux(normal[-1], exponent, 0))
        m.d.sync += [
            truncated.eq(Cat(significand[:-1], field)),
            round_up.eq(guard & (sticky | significand[0])),
            overflow.eq(normal[-1] & (exponent >= limit)),
        ]
        body = Signal.like(truncated)
        # A carry out of the fraction raises the exponent by itself, up to infinity.
        m.d.comb += body.eq(truncated + round_up)
        return body, overflow
