"""The one rounding: a long two's-complement integer to binary32 or binary16, to nearest even."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig, OutputFormat
from tern_hw.gateware.pipeline import delay, index_bits

__all__ = ["Rounder"]


def leading_zeros(value):
    """Return the leading zeros of a value whose width is a power of two and which is not zero."""
    half = len(value) // 2
    high, low = value[half:], value[:half]
    empty = ~high.any()
    if half == 1:
        return empty
    return Cat(Mux(empty, leading_zeros(low), leading_zeros(high)), empty)


class Rounder(wiring.Component):
    """Round `total` * 2**-accumulator_fraction_bits once.

    Overflow gives infinity, an exact zero +0, a negative value that rounds to zero -0;
    subnormal results are exact to their last place (IEEE 754-2019, 4.3.1 and 7.4).

    Latency: `latency` = 4. Throughput: a value a cycle. Backpressure: none.

    Members
    -------
    total : In, signed(accumulator_bits)
    nan : In
        Give the canonical NaN instead.
    result : Out, result_bits
    """

    LATENCY = 4

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.latency = self.LATENCY
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
        bias = (1 << (exponent_bits - 1)) - 1
        # Cycle 1: sign and magnitude; the accumulator is never the most negative integer.
        width = self.config.accumulator_bits - 1
        sign_1 = Signal()
        magnitude = Signal(width)
        negative = self.total[-1]
        m.d.sync += [
            sign_1.eq(negative),
            magnitude.eq(Mux(negative, -self.total, self.total)),
        ]

        # Cycle 2: how far to the left. A sentinel bit stops the shift where the exponent
        # would fall below the smallest: what stays there is subnormal.
        top_exponent = width - 1 - self.config.accumulator_fraction_bits + bias
        sentinel = width - top_exponent
        guarded = magnitude | (1 << sentinel if 0 <= sentinel < width else 0)
        padding = (1 << (width - 1).bit_length()) - width
        shift = Signal(index_bits(width + padding))
        magnitude_2 = Signal(width)
        m.d.sync += [
            shift.eq(leading_zeros(Cat(Const(1, padding) if padding else Const(0, 0), guarded))),
            magnitude_2.eq(magnitude),
        ]
        # Cycle 3: normalise.
        normal = Signal(width)
        exponent = Signal(signed(max(exponent_bits, top_exponent.bit_length()) + 2))
        m.d.sync += [normal.eq(magnitude_2 << shift), exponent.eq(top_exponent - shift)]
        # Cycle 4: round and pack; a carry out of the fraction raises the exponent by itself.
        significand = normal[-fraction_bits - 1 :]
        guard, sticky = normal[-fraction_bits - 2], normal[: -fraction_bits - 2].any()
        field = Signal(exponent_bits)
        m.d.comb += field.eq(Mux(normal[-1], exponent, 0))
        body = Signal(exponent_bits + fraction_bits)
        infinity = ((1 << exponent_bits) - 1) << fraction_bits
        round_up = guard & (sticky | significand[0])
        rounded = Cat(significand[:-1], field) + round_up
        overflow = normal[-1] & (exponent >= (1 << exponent_bits) - 1)
        m.d.comb += body.eq(Mux(overflow, infinity, rounded))
        sign_3 = delay(m, sign_1, 2, name="sign")
        nan_3 = delay(m, self.nan, 3, name="nan")
        quiet_nan = infinity | 1 << (fraction_bits - 1)
        m.d.sync += self.result.eq(Mux(nan_3, quiet_nan, Cat(body, sign_3)))
        return m
