"""The one rounding, against the naive oracle: ties, subnormals, overflow, signs, both formats."""

from fractions import Fraction
from itertools import product

import pytest

from tern_hw.config import ArrayConfig
from tern_hw.gateware.rounder import Rounder
from tests import naive
from tests.gateware.blocks import observed_latency, randoms, respond, small

PRECISION = {"fp32": 24, "fp16": 11}
NAN = {"fp32": 0x7FC00000, "fp16": 0x7E00}
#: max_k makes the magnitude's width: 48 bits, 63, 64 (a power of two), and binary16 activations.
WIDTHS = [("int8", 1), ("int8", 16384), ("int8", 65536), ("fp16", 1), ("fp16", 100)]
CONFIGS = [
    small(activation=activation, max_k=max_k, output=output)
    for (activation, max_k), output in product(WIDTHS, ("fp32", "fp16"))
]


def largest(config: ArrayConfig) -> int:
    """Return the largest magnitude that a total can have."""
    return (1 << config.accumulator_bits - 1) - 1


def check(config, totals):
    """Compare with the oracle, for each total and its negative, and NaN among them."""
    signed = [sign * total for total in totals for sign in (1, -1)]
    vectors = [
        {"total": total, "nan": index % 5 == 0}
        for index, total in enumerate(t for total in signed for t in (total, total))
    ]
    seen = respond(Rounder(config), vectors, ["result"])
    unit = Fraction(1, 1 << config.accumulator_fraction_bits)
    bits = {total: naive.float_bits(total * unit, config.output) for total in signed}
    for vector, (result,) in zip(vectors, seen, strict=True):
        expected = NAN[config.output] if vector["nan"] else bits[vector["total"]]
        assert result == expected, f"{vector}: {result:#x}, not {expected:#x}"


def near_ties(config):
    """Return totals at, just below and just above a tie, at every place that the width has."""
    precision = PRECISION[config.output]
    rng = randoms("ties", config.name, config.max_k)
    full = (1 << precision) - 1
    for place in range(config.accumulator_bits - 1 - precision):
        half = 1 << place
        for kept in (1 << precision - 1, full, full - 1, rng.randint(1, full), rng.randint(1, 99)):
            tie = (kept << place + 1) | half
            yield from (tie - 1, tie, tie + 1)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_ties_go_to_even_at_every_place(config):
    check(config, [total for total in near_ties(config) if total <= largest(config)])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_small_totals_and_powers_of_two(config):
    """Zero, the least subnormals, every exponent, and the largest total."""
    powers = [1 << place for place in range(config.accumulator_bits - 1)]
    neighbours = [power + step for power in powers for step in (-1, 0, 1)]
    check(config, [*range(17), *neighbours, largest(config)])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_random_totals_of_every_size(config):
    rng = randoms("rounder", config.name, config.max_k)
    check(config, [rng.getrandbits(rng.randrange(1, config.accumulator_bits)) for _ in range(200)])


@pytest.mark.parametrize("activation", ["int8", "fp16"])
def test_overflow_of_binary16_begins_at_the_tie(activation):
    """65519.99... rounds to 65504, 65520 to infinity: a carry through all of the fraction."""
    config = small(activation=activation, output="fp16")
    unit = 1 << config.accumulator_fraction_bits
    limit = 65520 * unit
    totals = [65504 * unit, limit - 1, limit, limit + 1, 65536 * unit, 2 * limit]
    seen = respond(Rounder(config), [{"total": total} for total in totals], ["result"])
    assert [result for (result,) in seen] == [0x7BFF, 0x7BFF, 0x7C00, 0x7C00, 0x7C00, 0x7C00]
    negated = respond(Rounder(config), [{"total": -total} for total in totals], ["result"])
    assert [result for (result,) in negated] == [0xFBFF, 0xFBFF, 0xFC00, 0xFC00, 0xFC00, 0xFC00]


def test_a_negative_that_rounds_to_zero_is_minus_zero():
    config = small(activation="fp16", output="fp16")
    # The least subnormal is 2**-24, the unit 2**-48: up to half of it rounds to zero.
    half = 1 << 23
    totals = [0, -1, -half, -half - 1, 1, half, half + 1]
    seen = respond(Rounder(config), [{"total": total} for total in totals], ["result"])
    assert [result for (result,) in seen] == [0, 0x8000, 0x8000, 0x8001, 0, 0, 1]


@pytest.mark.parametrize(("name", "value"), [("total", 1 << 40), ("total", -3), ("nan", 1)])
@pytest.mark.parametrize("output", ["fp32", "fp16"])
def test_latency_is_as_stated(name, value, output):
    rounder = Rounder(small(output=output))
    # Magnitude in two, guard, five for the shifts, round, pack.
    assert rounder.latency == 10
    before = {"total": 1 << 24, "nan": 0}
    assert observed_latency(rounder, before, {name: value}, "result") == rounder.latency
