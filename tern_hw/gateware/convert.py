"""Activations to integers: pad lanes to zero, binary16 to an integer multiple of 2**-24."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import Activation, ArrayConfig
from tern_hw.gateware.pipeline import delay

__all__ = ["ActivationConverter", "half_fields"]


def half_fields(half):
    """Return (sign, significand, shift, nonfinite) of a binary16.

    A finite one is (-1)**sign * significand * 2**shift in units of 2**-24; the significand
    has 11 bits, the shift is 0 ... 29.
    """
    fraction, exponent, sign = half[:10], half[10:15], half[15]
    normal = exponent.any()
    significand = Cat(fraction, normal)
    shift = (exponent - normal)[:5]
    return sign, significand, shift, exponent.all()


class ActivationConverter(wiring.Component):
    """Turn a beat of `lanes` activations into integers of `fixed_bits`; lanes beyond K become 0.

    Latency: `latency` (int8: 0, binary16: 1 cycle). Throughput: a beat a cycle.
    Backpressure: none.

    Members
    -------
    beat : In, lanes * activation_bits
        Activations, lane 0 lowest.
    remaining : In
        Inputs left in the row, this beat included: lane i is real when i < remaining.
    fixed : Out, lanes * fixed_bits
        Two's-complement integers, lane 0 lowest.
    nonfinite : Out
        A real lane holds an infinity or a NaN.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.latency = config.conversion_cycles
        super().__init__(
            {
                "beat": In(config.lanes * config.activation_bits),
                "remaining": In(config.max_k.bit_length()),
                "fixed": Out(config.lanes * config.fixed_bits),
                "nonfinite": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        bits = config.activation_bits
        lanes = []
        for lane in range(config.lanes):
            real = Signal(name=f"real_{lane}")
            m.d.comb += real.eq(self.remaining > lane)
            lanes.append(self.beat[lane * bits : (lane + 1) * bits] & real.replicate(bits))
        if config.activation is Activation.INT8:
            m.d.comb += self.fixed.eq(Cat(*lanes))
            return m
        fixed = []
        nonfinite = []
        for index, lane in enumerate(lanes):
            half = Signal(16, name=f"half_{index}")
            m.d.comb += half.eq(lane)
            sign, significand, shift, bad = half_fields(half)
            magnitude = Signal(config.fixed_bits - 1, name=f"magnitude_{index}")
            m.d.comb += magnitude.eq(significand << shift)
            value = Signal(config.fixed_bits, name=f"fixed_{index}")
            m.d.comb += value.eq(Mux(sign, -magnitude, magnitude))
            fixed.append(value)
            nonfinite.append(bad)
        m.d.comb += self.fixed.eq(delay(m, Cat(*fixed), self.latency, name="fixed"))
        m.d.comb += self.nonfinite.eq(delay(m, Cat(*nonfinite).any(), self.latency, name="bad"))
        return m
