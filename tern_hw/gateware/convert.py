"""Activations to integers: a binary16 as sign and magnitude, an integer multiple of 2**-24."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import Activation, ArrayConfig
from tern_hw.gateware.pipeline import delay

__all__ = ["ActivationConverter", "half_fields", "shifted_finely"]

#: Bits of an activation's exponent that shift finely (see `shifted_finely`).
FINE_BITS = 3


def half_fields(half):
    """Return (sign, significand, exponent, nonfinite) of a binary16.

    A finite one is (-1)**sign * significand * 2**(max(exponent, 1) - 1) in units of 2**-24.
    """
    exponent, sign = half[10:15], half[15]
    return sign, Cat(half[:10], exponent.any()), exponent, exponent.all()


def shifted_finely(significand, exponent, fine_bits: int):
    """Shift the significand of a binary16 by its exponent's low bits; return (operand, coarse).

    significand * 2**max(exponent, 1) is operand * 2**(coarse * 2**fine_bits): no subtraction.
    """
    # The significand's top bit tells an exponent of 0, which counts as 1.
    fars = [exponent[0] | ~significand[-1], *exponent[1:fine_bits]]
    operand = significand
    for place, far in enumerate(fars):
        width = len(operand) + (1 << place)
        operand = Mux(far, operand << (1 << place), operand)[:width]
    return operand, exponent[fine_bits:]


def magnitude_of(m: Module, operand, coarse, *, bits: int, name: str):
    """Return operand * 2**(8 * coarse - 1): each bit an OR of the few places it may come from."""
    placed: list = [Const(0, 1)] * (bits + 1)
    fine = Signal(len(operand), name=f"{name}_fine")
    m.d.comb += fine.eq(operand)
    for step in range(1 << len(coarse)):
        here = Signal(name=f"{name}_by_{step}")
        m.d.comb += here.eq(coarse == step if step else ~coarse.any())
        for at, bit in enumerate(fine):
            place = at + (step << FINE_BITS)
            if place <= bits:
                placed[place] |= bit & here
    magnitude = Signal(bits + 1, name=name)
    m.d.comb += magnitude.eq(Cat(*placed))
    return magnitude[1:]


class ActivationConverter(wiring.Component):
    """Turn a beat of `lanes` activations into what the array's memory holds, `fixed_bits` each.

    An 8-bit integer stays as it is. A binary16 becomes its magnitude in units of 2**-24, its sign
    on top: the dot product joins the sign with the trit's, so that no integer is negated here.

    Latency: `latency` (int8: 0, binary16: 1 cycle). Throughput: a beat a cycle.
    Backpressure: none.

    Members
    -------
    beat : In, lanes * activation_bits
        Activations, lane 0 lowest.
    fixed : Out, lanes * fixed_bits
        Integers, lane 0 lowest.
    nonfinite : Out, lanes
        The lane holds an infinity or a NaN.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.latency = config.conversion_cycles
        super().__init__(
            {
                "beat": In(config.lanes * config.activation_bits),
                "fixed": Out(config.lanes * config.fixed_bits),
                "nonfinite": Out(config.lanes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        if config.activation is Activation.INT8:
            m.d.comb += self.fixed.eq(self.beat)
            return m
        fixed = []
        nonfinite = []
        for lane in range(config.lanes):
            half = self.beat[16 * lane : 16 * lane + 16]
            sign, significand, exponent, bad = half_fields(half)
            operand, coarse = shifted_finely(significand, exponent, FINE_BITS)
            bits, name = config.fixed_bits - 1, f"magnitude_{lane}"
            magnitude = magnitude_of(m, operand, coarse, bits=bits, name=name)
            # A register for each lane: one for all would be a line that Verilator cannot read.
            value = Cat(magnitude, sign)
            fixed.append(delay(m, value, self.latency, name=f"fixed_{lane}"))
            nonfinite.append(bad)
        m.d.comb += self.fixed.eq(Cat(*fixed))
        m.d.comb += self.nonfinite.eq(delay(m, Cat(*nonfinite), self.latency, name="bad"))
        return m
