"""Activations to integers: every binary16, and every byte."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.gateware.convert import ActivationConverter, half_fields, shifted_finely
from tests.gateware.blocks import observed_latency, pack, respond, small
from tests.gateware.models import half_units, is_finite

ALL_HALVES = range(1 << 16)
INFINITY, NAN = 0x7C00, 0x7E00


class Fields(wiring.Component):
    """`half_fields` and `shifted_finely` of `COUNT` halves at once."""

    COUNT = 16
    NAMES = ("sign", "operand", "coarse", "nonfinite")
    latency = 0

    def __init__(self, fine_bits):
        self.fine_bits = fine_bits
        fields = {f"{name}_{at}": Out(18) for name in self.NAMES for at in range(self.COUNT)}
        super().__init__({"halves": In(16 * self.COUNT), **fields})

    def elaborate(self, platform):
        m = Module()
        for at in range(self.COUNT):
            half = self.halves[16 * at : 16 * at + 16]
            sign, significand, exponent, nonfinite = half_fields(half)
            shifted = shifted_finely(significand, exponent, self.fine_bits)
            fields = (sign, *shifted, nonfinite)
            for name, field in zip(self.NAMES, fields, strict=True):
                m.d.comb += getattr(self, f"{name}_{at}").eq(field)
        return m


@pytest.mark.parametrize("fine_bits", [2, 3])
def test_half_fields_of_all_halves(fine_bits):
    words = [range(first, first + Fields.COUNT) for first in range(0, 1 << 16, Fields.COUNT)]
    names = [f"{name}_{at}" for at in range(Fields.COUNT) for name in Fields.NAMES]
    seen = respond(Fields(fine_bits), [{"halves": pack(word, 16)} for word in words], names)
    for word, values in zip(words, seen, strict=True):
        for half in word:
            sign, operand, coarse, nonfinite, *values = values
            assert nonfinite == (not is_finite(half))
            assert sign == half >> 15
            if not nonfinite:
                twice = (-1) ** sign * operand << (coarse << fine_bits)
                assert twice == 2 * half_units(half)


def sign_magnitude(half, config):
    """Return what the memory holds for a half: its sign over its magnitude."""
    return (half >> 15) << (config.fixed_bits - 1) | abs(half_units(half))


def test_all_halves_convert():
    config = small(lanes=64, activation="fp16")
    beats = [ALL_HALVES[at : at + 64] for at in range(0, 1 << 16, 64)]
    vectors = [{"beat": pack(beat, 16)} for beat in beats]
    seen = respond(ActivationConverter(config), vectors, ["fixed", "nonfinite"])
    for beat, (fixed, nonfinite) in zip(beats, seen, strict=True):
        assert nonfinite == pack([not is_finite(half) for half in beat], 1)
        if not nonfinite:
            assert fixed == pack([sign_magnitude(half, config) for half in beat], config.fixed_bits)


def test_all_bytes_pass():
    config = small(lanes=16)
    beats = [range(at, at + 16) for at in range(0, 256, 16)]
    vectors = [{"beat": pack(beat, 8)} for beat in beats]
    seen = respond(ActivationConverter(config), vectors, ["fixed", "nonfinite"])
    assert seen == [[pack(beat, 8), 0] for beat in beats]


@pytest.mark.parametrize("half", [INFINITY, INFINITY | 0x8000, NAN, 0x7C01, 0xFFFF])
def test_nonfinite_is_told_for_each_lane_alone(half):
    config = small(lanes=9, activation="fp16")
    vectors = [{"beat": 0x3C00 << 16 * ((lane + 4) % 9) | half << 16 * lane} for lane in range(9)]
    seen = respond(ActivationConverter(config), vectors, ["nonfinite"])
    assert seen == [[1 << lane] for lane in range(9)]


@pytest.mark.parametrize(("activation", "cycles"), [("int8", 0), ("fp16", 1)])
@pytest.mark.parametrize("output", ["fixed", "nonfinite"])
def test_latency_is_as_stated(activation, cycles, output):
    converter = ActivationConverter(small(activation=activation))
    assert converter.latency == cycles
    if activation == "int8" and output == "nonfinite":
        return  # an integer is always finite: test_all_bytes_pass
    before, after = {"beat": 0}, {"beat": NAN}
    assert observed_latency(converter, before, after, output) == cycles
