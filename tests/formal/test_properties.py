"""What the blocks promise holds for all inputs, and a solver finds the run where it does not."""

import pytest

from tern_hw.flows.smt import Verdict
from tern_hw.formal.harness import Property
from tern_hw.formal.properties import properties

PROPERTIES = {each.block: each for each in properties()}
QUICK = [name for name, each in PROPERTIES.items() if each.quick]
SLOW = [name for name, each in PROPERTIES.items() if not each.quick]


def verdict_on(each: Property, change=lambda text: text) -> Verdict:
    verdict, _ = each.decide(change)
    return verdict


def replaced(old: str, new: str):
    """Return what breaks Verilog at one place, which must be there."""

    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


def test_every_property_has_a_name_of_its_own():
    assert len(PROPERTIES) == len(properties())


@pytest.mark.parametrize("name", QUICK)
def test_property_holds(name):
    verdict = verdict_on(PROPERTIES[name])
    assert verdict.holds, verdict.log


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_long_property_holds(name):
    verdict = verdict_on(PROPERTIES[name])
    assert verdict.holds, verdict.log


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        # A base-3 code above the legal ones passes as legal.
        ("decoder, base3, 8 lanes", ">= 8'hf3", ">= 8'hf4"),
        # What a block says is wrong, each output by itself.
        ("decoder, 2bit, 8 lanes", "    illegal <= ", "    illegal <= ~"),
        ("decoder, 2bit, 8 lanes", "    nonzero <= ", "    nonzero <= ~"),
        ("decoder, base3, 8 lanes", "    negative <= ", "    negative <= ~"),
        ("lane mask, 8 lanes, 2 segments", "mask[5] = ", "mask[5] = ~"),
        ("converter, int8, 8 lanes", "assign fixed = ", "assign fixed = ~"),
        ("rounder, 49 bits to fp16", "    result <= ", "    result <= 16'h1 ^ "),
        ("packet gate", "assign misframed = ", "assign misframed = ~"),
        ("registers, reads", "    axil_rresp <= ", "    axil_rresp <= ~"),
        ("registers, writes", "    axil_bresp <= ", "    axil_bresp <= ~"),
        ("registers, contents", "    errors <= ", "    errors <= ~"),
        # One lane's trit counts for another's.
        ("tree, 8 lanes, 4 bits", "nonzero[3]", "nonzero[2]"),
        # A beat is on offer whether the gate is open or not.
        ("packet gate", "present = \\$2  & tvalid", "present = tvalid"),
        ("packet gate", "assign late = ", "assign late = ~"),
        # One bit of one count is wrong as it goes round.
        ("counters, 5 of 32 bits", "    count_3 <= ", "    count_3 <= 32'h80000000 ^ "),
        # A claim costs one place too few.
        ("credits, 20 places, 4 a claim", "claimed ? 3'h4", "claimed ? 3'h3"),
        # An answer is dropped where the master is slow to take it.
        ("registers, writes", "if (axil_bready)", "if (axil_awready)"),
    ],
)  # fmt: skip
def test_broken_block_fails_with_a_trace(name, old, new):
    verdict = verdict_on(PROPERTIES[name], replaced(old, new))
    assert verdict.holds is False
    assert "$enddefinitions" in verdict.trace
