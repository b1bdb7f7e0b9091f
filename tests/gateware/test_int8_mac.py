"""The integer multiply-accumulate: every pair of operands, wrapped sums, latency."""

import itertools

import pytest

from tern_hw.gateware.int8_mac import Int8Mac
from tests.gateware.blocks import observed_latency, randoms, respond

LOW, HIGH = -(1 << 31), (1 << 31) - 1


@pytest.mark.parametrize("dsp", [False, True])
def test_sums_wrap_and_products_are_exact(dsp):
    mac = Int8Mac(registers=1, dsp=dsp)
    rng = randoms("int8", dsp)
    corners = (-128, -127, -1, 0, 1, 127)
    triples = [(a, b, c) for a, b in itertools.product(corners, corners) for c in (LOW, 0, HIGH)]
    triples += [
        (rng.randint(-128, 127), rng.randint(-128, 127), rng.randint(LOW, HIGH)) for _ in range(500)
    ]
    vectors = [dict(zip("abc", triple, strict=True)) for triple in triples]
    seen = respond(mac, vectors, ["result"])
    assert [value for (value,) in seen] == [mac.model(*triple) for triple in triples]


@pytest.mark.slow
def test_every_product():
    mac = Int8Mac()
    pairs = list(itertools.product(range(-128, 128), range(-128, 128)))
    seen = respond(mac, [{"a": a, "b": b, "c": 0} for a, b in pairs], ["result"])
    assert [value for (value,) in seen] == [a * b for a, b in pairs]


@pytest.mark.parametrize("registers", [0, 1, 2])
def test_latency(registers):
    mac = Int8Mac(registers=registers)
    before, after = {"a": 0, "b": 0, "c": 0}, {"a": 1, "b": 1, "c": 0}
    assert observed_latency(mac, before, after, "result") == mac.latency == registers


def test_registers_beyond_two_are_refused():
    with pytest.raises(ValueError, match="registers must be 0 to 2, not 3"):
        Int8Mac(registers=3)
