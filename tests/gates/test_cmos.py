"""The generic gates' capacitances follow from their functions by the rule of logical effort."""

import pytest

from tern_hw.gates.cells import Bracket
from tern_hw.gates.cmos import CMOS, GATES, INVERTER_FF, SUPPLY_V


def depths(expression, outer=1):
    """Yield (pin, transistors in series with it) of a network of ands (series) and ors."""
    if isinstance(expression, str):
        yield expression, outer
        return
    operator, *parts = expression
    for part in parts:
        others = sum(longest(other) for other in parts if other is not part)
        yield from depths(part, outer + (others if operator == "and" else 0))


def longest(expression):
    if isinstance(expression, str):
        return 1
    operator, *parts = expression
    found = [longest(part) for part in parts]
    return sum(found) if operator == "and" else max(found)


def dual(expression):
    if isinstance(expression, str):
        return expression
    operator, *parts = expression
    return ({"and": "or", "or": "and"}[operator], *(dual(part) for part in parts))


@pytest.mark.parametrize("name", GATES)
def test_widths_make_every_path_as_strong_as_the_inverters(name):
    cell = CMOS.cells[name]
    (output,) = cell.outputs.values()
    negation, pulled_down = output.function
    assert negation == "not"
    falls, rises = dict(depths(pulled_down)), dict(depths(dual(pulled_down)))
    for pin, capacitance in cell.inputs.items():
        widths = falls[pin] + 2 * rises[pin]
        assert capacitance == pytest.approx(widths / 3 * INVERTER_FF)


def test_energies_are_capacitance_times_voltage_squared_by_two():
    internal = CMOS.cells["$_NAND_"].outputs["Y"].internal_fj.at(0, 0)
    # Parasitic of a NAND2: twice the inverter's input.
    whole = 2 * INVERTER_FF * SUPPLY_V**2 / 2
    assert internal == pytest.approx(Bracket(whole / 2, whole, 1.5 * whole))


def test_flip_flops_clock_has_its_bounds_around_it():
    flop = CMOS.cells["$_DFF_P_"]
    low, value, high = flop.input_fj["C"].at(0, 0)
    unit = INVERTER_FF / 3 * SUPPLY_V**2 / 2
    pin = flop.inputs["C"] * SUPPLY_V**2 / 2
    assert (low + pin, value + pin, high + pin) == pytest.approx((8 * unit, 14 * unit, 20 * unit))
