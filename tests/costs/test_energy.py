"""Prices: a table's own points, what lies between, and the ratios that the literature quotes."""

import math

import pytest

from tern_hw.config import ArrayConfig
from tern_hw.costs import count_matmul, load_inputs
from tern_hw.costs.actions import Action
from tern_hw.costs.energy import (
    action_area_um2,
    action_energy_pj,
    energy_pj,
    sram_pj_per_bit,
)
from tern_hw.errors import TernError

SEVEN = load_inputs("7nm", "lpddr5").values()
FORTY_FIVE = load_inputs("45nm", "ddr4").values()


def add(bits, lanes=0):
    return Action("add", bits=bits, lanes=lanes)


def test_the_tables_points_are_met():
    assert action_energy_pj(add(8), SEVEN) == 0.007
    assert action_energy_pj(add(32), SEVEN) == pytest.approx(0.03)
    assert action_energy_pj(Action("multiply", bits=8, by=8), SEVEN) == pytest.approx(0.07)
    assert action_energy_pj(Action("multiply", bits=32, by=32), FORTY_FIVE) == pytest.approx(3.1)
    assert action_energy_pj(Action("fp16_mul"), SEVEN) == 0.34
    read = Action("read", bits=64, capacity_bytes=32 << 10)
    assert action_energy_pj(read, FORTY_FIVE) == pytest.approx(20)
    assert action_area_um2(add(8), FORTY_FIVE) == 36
    assert action_area_um2(Action("write", capacity_bytes=100), FORTY_FIVE) == 8 * 100 * 0.5


def test_between_the_points_adds_are_linear_and_multiplies_by_partial_products():
    assert action_energy_pj(add(20), SEVEN) == pytest.approx(0.0185)
    assert action_energy_pj(add(4), SEVEN) == pytest.approx(0.0035)
    assert action_energy_pj(add(64), SEVEN) == pytest.approx(0.06)
    narrow, wide = 0.07 / 64, 1.48 / 1024
    expected = 16 * 11 * (narrow + (wide - narrow) * (math.sqrt(176) - 8) / 24)
    product = Action("multiply", bits=16, by=11)
    assert action_energy_pj(product, SEVEN) == pytest.approx(expected)


def test_memories_follow_a_power_of_their_capacity():
    assert sram_pj_per_bit(16 << 10, FORTY_FIVE) == pytest.approx(math.sqrt(200) / 64)
    assert sram_pj_per_bit(100, SEVEN) == pytest.approx(7.5 / 64)
    assert sram_pj_per_bit(2 << 20, SEVEN) > 14 / 64
    with pytest.raises(TernError, match="on-chip memory must be at most 16777216 bytes, not"):
        sram_pj_per_bit(1 << 30, SEVEN)


def test_zero_trits_spare_an_add_by_the_share_of_times_that_all_below_it_are_zero():
    values = (
        load_inputs("7nm", "lpddr5").replaced("data.zero_fraction", 0.5, "a test, 2026").values()
    )
    assert action_energy_pj(add(8, lanes=2), values) == pytest.approx(0.75 * 0.007)
    assert action_energy_pj(add(8, lanes=4), values) == pytest.approx(0.9375 * 0.007)
    assert action_energy_pj(add(8), values) == 0.007


@pytest.mark.parametrize("what", [action_energy_pj, action_area_um2])
def test_an_unknown_component_is_refused(what):
    with pytest.raises(TernError, match=r"component must be one that has .*, not 'fp8_add'"):
        what(Action("fp8_add"), SEVEN)


def test_the_quoted_ratios_are_one_8_bit_add():
    for values, ratio in ((SEVEN, 71.43), (FORTY_FIVE, 50)):
        multiply_add = values["energy.fp16_mul"] + values["energy.fp16_add"]
        assert multiply_add / values["energy.int_add_8"] == pytest.approx(ratio, abs=0.01)
    # Wider sums, as they are: eleven bits, and a 32-bit accumulator.
    assert 0.5 / action_energy_pj(add(11), SEVEN) == pytest.approx(51, abs=0.5)
    assert 0.5 / action_energy_pj(add(32), SEVEN) == pytest.approx(16.7, abs=0.05)


@pytest.mark.parametrize(
    ("pj_per_bit", "fp16", "ternary", "ratio"),
    [
        (0.0, 0.50, 0.010, 50),
        (sram_pj_per_bit(8 << 10, SEVEN), 2.38, 0.198, 12),
        (sram_pj_per_bit(1 << 20, SEVEN), 4.00, 0.36, 11),
        (load_inputs("7nm", "hbm2").values()["memory.energy"], 62.9, 6.25, 10.1),
        (load_inputs("7nm", "lpddr5").values()["memory.energy"], 144.5, 14.4, 10.0),
        (load_inputs("7nm", "ddr4").values()["memory.energy"], 325.3, 32.5, 10.0),
    ],
)
def test_with_a_memory_the_ratio_is_that_of_the_bits(pj_per_bit, fp16, ternary, ratio):
    """Codes alone, an 11-bit add: what scales then take away is in `Ratios.memory`."""
    theirs = 0.5 + 16 * pj_per_bit
    ours = action_energy_pj(add(11), SEVEN) + 1.6 * pj_per_bit
    assert theirs == pytest.approx(fp16, rel=0.005)
    assert ours == pytest.approx(ternary, rel=0.02)
    assert theirs / ours == pytest.approx(ratio, rel=0.02)


def test_a_step_by_hand():
    """One row of eight lanes, one step of one group: every action priced by a dictionary."""
    config = ArrayConfig(lanes=8, rows=1, group_size="row", max_k=8, max_n=1)
    counts = count_matmul(config, 1, 1, 8)
    compute, memory = energy_pj(counts.actions, SEVEN)
    slope = 0.023 / 24
    z = SEVEN["data.zero_fraction"]
    # Two passes (loading, computing): 4 adds of 9 bits, 2 of 10, 1 of 11, one of the sum.
    assert config.sum_bits == 12
    adds = 2 * (
        4 * (0.007 + slope) * (1 - z**2)
        + 2 * (0.007 + 2 * slope) * (1 - z**4)
        + (0.007 + 3 * slope) * (1 - z**8)
        + (0.007 + 4 * slope) * (1 - z**8)
    )
    # A group's end: a sum of 12 + 41 bits, the row's; its magnitude, and rounding to 32 bits.
    assert config.accumulator_bits == 52
    # The first two in halves: 26 bits, and what is left.
    adds += sum(0.007 + (bits - 8) * slope for bits in (26, 27, 26, 26))
    adds += 51 * 0.03 / 32 + 0.03
    narrow, steep = 0.07 / 64, 1.48 / 1024 - 0.07 / 64
    multiplies = 2 * 12 * 14 * (narrow + steep * (math.sqrt(168) - 8) / 24)
    others = sum(
        times * action.bits * SEVEN[f"energy.{name}"]
        for action, times in counts.actions.items()
        for component, name in (("gate", "gate"), ("register", "register_bit"))
        if action.component == component
    )
    assert compute == pytest.approx(adds + multiplies + others)
    # A word of 64 bits written once and read twice; X, of 12 bits, written and read once.
    assert memory == pytest.approx((3 * 64 + 2 * 12) * 7.5 / 64)
