"""What the harnesses compare with is right itself: tables against the formats' own definitions."""

import itertools

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from tern_hw.config import Packing
from tern_hw.formal.arithmetic import byte_trits, half_integer
from tern_hw.packing import pack
from tests.gateware.models import half_units


@pytest.mark.parametrize("packing", Packing)
def test_bytes_decode_to_the_trits_they_were_packed_from(packing):
    legal = set()
    for trits in itertools.product((-1, 0, 1), repeat=packing.digits_per_byte):
        (byte,) = pack(np.array([trit + 1 for trit in trits], np.uint8), packing).tolist()
        assert byte_trits(byte, packing) == list(trits)
        legal.add(byte)
    assert len(legal) == 3**packing.digits_per_byte
    for byte in set(range(256)) - legal:
        trits = byte_trits(byte, packing)
        assert trits is None if packing is Packing.BASE3 else None in trits


def seen_integers(halves):
    half, out, bad = Signal(16), Signal(42), Signal()
    m = Module()
    magnitude, sign, nonfinite = half_integer(half)
    m.d.comb += [out.eq(magnitude), bad.eq(nonfinite)]
    seen = []

    async def drive(ctx):
        for bits in halves:
            ctx.set(half, bits)
            await ctx.delay(1e-9)
            seen.append((ctx.get(out), ctx.get(sign), ctx.get(bad)))

    simulator = Simulator(m)
    simulator.add_testbench(drive)
    simulator.run()
    return seen


def check_integers(halves):
    for half, (magnitude, sign, bad) in zip(halves, seen_integers(halves), strict=True):
        assert bad == (half >> 10 & 31 == 31)
        if not bad:
            assert (-magnitude if sign else magnitude) == half_units(half)


def test_a_binary16_is_its_integer():
    check_integers([half for half in range(1 << 16) if half & 0x3FF in (0, 1, 0x155, 0x3FF)])


@pytest.mark.slow
def test_every_binary16_is_its_integer():
    check_integers(range(1 << 16))
