"""The one rounding: a long two's-complement integer to binary32 or binary16, to nearest even."""

import itertools

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig, OutputFormat
from tern_hw.gateware.pipeline import at_least, delay

__all__ = ["Rounder"]


def normalising_shifts(width: int) -> list[int]:
    """Return the left shifts that bring the first one of a value to its top, widest first."""
    return [1 << place for place in reversed(range((width - 1).bit_length()))]


def empty_after(value, moved: int, places: int):
    """Return whether the top `places` bits are zeros, when `value` was shifted left by `moved`."""
    top = len(value) - moved
    return ~value[max(0, top - places) : top].any()


def shifted_and_gathered(value, due, places: int, exact: int):
    """Return the top `exact` bits of a value that is shifted left by `places` where `due`.

    Below them one bit more, the OR of all others. It waits for no shift: what is shifted past
    the edge is looked at apart.
    """
    shifted = Mux(due, value << places, value)[: len(value)]
    rest = len(value) - exact
    if rest <= 1:
        return shifted
    edge = max(0, rest - places)
    lost = value[:edge].any() | (~due & value[edge:rest].any())
    return Cat(lost, shifted[rest:])


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
        # The cycle before the last: what is rounded, and how. What needs no rounding stands there
        # already, so that nothing comes after the last adder.
        top = normal[-1] & ~delay(m, subnormal, cycles, name="subnormal")
        significand = normal[-fraction_bits - 1 :]
        guard, sticky = normal[-fraction_bits - 2], normal[: -fraction_bits - 2].any()
        sign_now = delay(m, sign, cycles + 2, name="sign")
        nan_now = delay(m, self.nan, cycles + 3, name="nan")
        largest = (1 << exponent_bits) - 1
        # The exponent is top_exponent - shift.
        infinite = top & ~at_least(shift, top_exponent - largest + 1)
        field = Signal(exponent_bits)
        fraction = Signal(fraction_bits)
        sign_last = Signal()
        round_up = Signal()
        special = nan_now | infinite
        exponent = (top_exponent - shift)[:exponent_bits]
        quiet_nan = 1 << (fraction_bits - 1)
        m.d.sync += [
            field.eq((exponent & top.replicate(exponent_bits)) | special.replicate(exponent_bits)),
            fraction.eq(Mux(special, Mux(nan_now, quiet_nan, 0), significand[:-1])),
            round_up.eq(guard & (sticky | significand[0]) & ~special),
            sign_last.eq(sign_now & ~nan_now),
        ]
        # The last: a carry out of the fraction raises the exponent by itself.
        rounded = Cat(fraction, field) + round_up
        m.d.sync += self.result.eq(Cat(rounded[:-1], sign_last))
        return m

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
            next_empty = Mux(
                empty, empty_after(value, places, following), empty_after(value, 0, following)
            )
            shift = [empty, *shift]
            empty_now = Signal(name=f"empty_{following}")
            if following == 1:
                m.d.comb += empty_now.eq(next_empty)
                shifted = Mux(empty, value << places, value)[: len(value)]
                shift = [empty_now, *shift]
                kept = shifted_and_gathered(shifted, empty_now, 1, exact)
            else:
                m.d.sync += empty_now.eq(next_empty)
                kept = shifted_and_gathered(value, empty, places, exact + places - 1)
            value = Signal(len(kept), name=f"normal_{at}")
            # The bits decided now stand below those decided before.
            bits = [Signal(name=f"shift_{at}_{bit}") for bit in range(len(shift))]
            m.d.sync += [value.eq(kept), Cat(*bits).eq(Cat(*shift))]
            shift, empty = bits, empty_now
        return value, Cat(*shift), len(shifts) - 1
