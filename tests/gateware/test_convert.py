"""Activations to integers: every binary16, every byte, and lanes beyond K."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.gateware.convert import ActivationConverter, half_fields
from tests.gateware.blocks import observed_latency, pack, randoms, respond, small
from tests.gateware.models import half_units, is_finite

ALL_HALVES = range(1 << 16)
INFINITY, NAN = 0x7C00, 0x7E00


class Fields(wiring.Component):
    """`half_fields` of `COUNT` halves at once."""

    COUNT = 16
    NAMES = ("sign", "significand", "shift", "nonfinite")
    latency = 0

    def __init__(self):
        fields = {f"{name}_{at}": Out(16) for name in self.NAMES for at in range(self.COUNT)}
        super().__init__({"halves": In(16 * self.COUNT), **fields})

    def elaborate(self, platform):
        m = Module()
        for at in range(self.COUNT):
            fields = half_fields(self.halves[16 * at : 16 * at + 16])
            for name, field in zip(self.NAMES, fields, strict=True):
                m.d.comb += getattr(self, f"{name}_{at}").eq(field)
        return m


def test_half_fields_of_all_halves():
    words = [range(first, first + Fields.COUNT) for first in range(0, 1 << 16, Fields.COUNT)]
    names = [f"{name}_{at}" for at in range(Fields.COUNT) for name in Fields.NAMES]
    seen = respond(Fields(), [{"halves": pack(word, 16)} for word in words], names)
    for word, values in zip(words, seen, strict=True):
        for half in word:
            sign, significand, shift, nonfinite, *values = values
            assert nonfinite == (not is_finite(half))
            assert sign == half >> 15
            if not nonfinite:
                assert significand < 1 << 11
                assert shift <= 29
                assert (-1) ** sign * significand << shift == half_units(half)


def test_all_halves_convert():
    config = small(lanes=64, activation="fp16")
    beats = [ALL_HALVES[at : at + 64] for at in range(0, 1 << 16, 64)]
    vectors = [{"beat": pack(beat, 16), "remaining": 64} for beat in beats]
    seen = respond(ActivationConverter(config), vectors, ["fixed", "nonfinite"])
    for beat, (fixed, nonfinite) in zip(beats, seen, strict=True):
        assert nonfinite == (not all(is_finite(half) for half in beat))
        if not nonfinite:
            assert fixed == pack([half_units(half) for half in beat], config.fixed_bits)


def test_all_bytes_pass():
    config = small(lanes=16)
    beats = [range(at, at + 16) for at in range(0, 256, 16)]
    vectors = [{"beat": pack(beat, 8), "remaining": 16} for beat in beats]
    seen = respond(ActivationConverter(config), vectors, ["fixed", "nonfinite"])
    assert seen == [[pack(beat, 8), 0] for beat in beats]


@pytest.mark.parametrize("activation", ["int8", "fp16"])
@pytest.mark.parametrize("lanes", [8, 9])
def test_lanes_beyond_k_are_zero(activation, lanes):
    config = small(lanes=lanes, activation=activation, max_k=40)
    rng = randoms("beyond", activation, lanes)
    bits, finite = config.activation_bits, 0x7BFF
    vectors, expected = [], []
    for remaining in range(41):
        lane_bits = [rng.randint(1, (1 << bits) - 1) & finite for _ in range(lanes)]
        vectors.append({"beat": pack(lane_bits, bits), "remaining": remaining})
        values = lane_bits if activation == "int8" else [half_units(half) for half in lane_bits]
        kept = values[:remaining] + [0] * (lanes - remaining)
        expected.append([pack(kept, config.fixed_bits), 0])
    assert respond(ActivationConverter(config), vectors, ["fixed", "nonfinite"]) == expected


@pytest.mark.parametrize("half", [INFINITY, INFINITY | 0x8000, NAN, 0x7C01, 0xFFFF])
def test_nonfinite_is_told_for_each_real_lane_alone(half):
    config = small(lanes=9, activation="fp16")
    cases = [(lane, remaining) for lane in range(9) for remaining in range(12)]
    vectors = [
        {"beat": 0x3C00 << 16 * ((lane + 4) % 9) | half << 16 * lane, "remaining": remaining}
        for lane, remaining in cases
    ]
    seen = respond(ActivationConverter(config), vectors, ["nonfinite"])
    assert seen == [[lane < remaining] for lane, remaining in cases]


@pytest.mark.parametrize(("activation", "cycles"), [("int8", 0), ("fp16", 1)])
@pytest.mark.parametrize("output", ["fixed", "nonfinite"])
def test_latency_is_as_stated(activation, cycles, output):
    converter = ActivationConverter(small(activation=activation))
    assert converter.latency == cycles
    if activation == "int8" and output == "nonfinite":
        return  # an integer is always finite: test_all_bytes_pass
    before, after = {"beat": 0, "remaining": 8}, {"beat": NAN}
    assert observed_latency(converter, before, after, output) == cycles
