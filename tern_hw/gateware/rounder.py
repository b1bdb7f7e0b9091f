"""The one rounding: a long two's-complement integer to binary32 or binary16, to nearest even."""

import itertools

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig, OutputFormat
from tern_hw.gateware.pipeline import delay

__all__ = ["Rounder"]


def normalising_shifts(width: int) -> list[int]:
    """Return the left shifts that bring the first one of a value to its top, widest first."""
    return [1 << place for place in reversed(range((width - 1).bit_length()))]


def empty_after(value, moved: int, places: int):
    """Return whether the top `places` bits are zeros, when `value` was shifted left by `moved`."""
    top = len(value) - moved
    return ~value[max(0, top - places) : top].any()


def gathered(value, exact: int):
    """Return the top `exact` bits of a value, with one below that is the OR of all the others."""
    if exact + 1 >= len(value):
        return value
    return Cat(value[:-exact].any(), value[-exact:])


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
        # Cycles 1, 2: sign and magnitude; the accumulator is never the most negative integer.
        width = self.config.accumulator_bits - 1
        sign, ones = Signal(), Signal(width)
        magnitude = Signal(width)
        negative = self.total[-1]
        m.d.sync += [
            sign.eq(negative),
            # Before the adder, where whoever selects `total` has room for it in the same LUT.
            ones.eq(self.total[:-1] ^ negative.replicate(width)),
            magnitude.eq(ones + sign),
        ]
        # Cycle 3: where the exponent would fall below the smallest, a bit that stops the shift.
        top_exponent = width - 1 - self.config.accumulator_fraction_bits + bias
        guarded, subnormal, empty = self._guard(m, magnitude, width - top_exponent)
        normal, shift, cycles = self._normalise(m, guarded, empty, fraction_bits + 2)
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
        sign_now = delay(m, sign, cycles + 3, name="sign")
        nan_now = delay(m, self.nan, cycles + 4, name="nan")
        body = self._body(exponent, normal_now, fraction, round_up)
        quiet_nan = self._infinity | 1 << (fraction_bits - 1)
        m.d.sync += self.result.eq(Mux(nan_now, quiet_nan, Cat(body, sign_now)))
        return m

    @property
    def _infinity(self) -> int:
        return ((1 << self.exponent_bits) - 1) << self.fraction_bits

    def _guard(self, m, magnitude, sentinel):
        """Return the magnitude, with the stopping bit where that would be the first; whether.

        Also whether the first, widest shift is due.
        """
        guarded, subnormal, empty = Signal.like(magnitude), Signal(), Signal()
        inside = 0 <= sentinel < len(magnitude)
        stops = ~magnitude[sentinel:].any() if inside else 0
        places = normalising_shifts(len(magnitude))[0]
        zeros = empty_after(magnitude, 0, places)
        stopped = stops if inside and sentinel >= len(magnitude) - places else 0
        m.d.sync += [guarded.eq(magnitude), subnormal.eq(stops), empty.eq(zeros & ~stopped)]
        if inside:
            m.d.sync += guarded[sentinel].eq(magnitude[sentinel] | stops)
        return guarded, subnormal, empty

    @staticmethod
    def _normalise(m, value, empty, exact):
        """Return (value with its first one on top, shift, cycles that this takes).

        `empty` tells whether the first shift is due. Each cycle shifts, and looks at both
        outcomes at once for zeros at the next one's place; the last does the last two shifts.
        Bits that no later shift brings into the top `exact` ones are gathered in one.
        """
        shifts = normalising_shifts(len(value))
        shift: list = []
        for at, (places, following) in enumerate(itertools.pairwise(shifts)):
            shifted = Mux(empty, value << places, value)[: len(value)]
            next_empty = Mux(
                empty, empty_after(value, places, following), empty_after(value, 0, following)
            )
            shift = [empty, *shift]
            empty_now = Signal(name=f"empty_{following}")
            if following == 1:
                m.d.comb += empty_now.eq(next_empty)
                shifted = Mux(empty_now, shifted << 1, shifted)[: len(value)]
                shift = [empty_now, *shift]
                kept = gathered(shifted, exact)
            else:
                m.d.sync += empty_now.eq(next_empty)
                kept = gathered(shifted, exact + places - 1)
            value = Signal(len(kept), name=f"normal_{at}")
            # The bits decided now stand below those decided before.
            bits = [Signal(name=f"shift_{at}_{bit}") for bit in range(len(shift))]
            m.d.sync += [value.eq(kept), Cat(*bits).eq(Cat(*shift))]
            shift, empty = bits, empty_now
        return value, Cat(*shift), len(shifts) - 1

    def _body(self, exponent, normal, fraction, round_up):
        """Return exponent and fraction, rounded; infinity where it overflows."""
        field = Mux(normal, exponent[: self.exponent_bits], 0)
        rounded = Cat(fraction, field) + round_up
        overflow = normal & (exponent >= (1 << self.exponent_bits) - 1)
        return Mux(overflow, self._infinity, rounded)[: self.fraction_bits + self.exponent_bits]
