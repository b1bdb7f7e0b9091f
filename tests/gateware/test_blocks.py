"""The blocks that are emitted alone: names, shares of an array, and the opponents' means."""

import pytest

from tern_hw.errors import TernError
from tern_hw.flows.synthesis import SynthesisOptions, synthesize
from tern_hw.flows.targets import TARGETS
from tern_hw.gateware.blocks import BLOCKS, blocks_of, emit_block
from tests.gateware.blocks import small


def test_blocks_are_emitted_under_their_own_names():
    config = small()
    modules = {}
    for name in BLOCKS:
        module, text = emit_block(config, name)
        modules[name] = module
        assert f"module {module}(" in text
    assert modules["array"] == config.name
    assert len(set(modules.values())) == len(BLOCKS)
    with pytest.raises(TernError, match=r"block must be one of array, core, .*, not 'heart'"):
        emit_block(config, "heart")


@pytest.mark.parametrize("packing", ["2bit", "base3"])
def test_shares_of_an_array_count_its_copies(packing):
    config = small(packing=packing, rows=3)
    for name, block in BLOCKS.items():
        assert block.units(config) * block.copies(config) in (1, 3, 8, 24), name
    assert BLOCKS["dots"].units(config) == 24
    assert BLOCKS["decoder"].units(config) == 8
    assert BLOCKS["decoder"].copies(config) == BLOCKS["scale"].copies(config) == 3
    assert BLOCKS["macs"].units(config) == BLOCKS["mac"].copies(config) == 24


def test_opponents_blocks_are_those_that_need_no_trits():
    config = small(activation="fp16", weights="fp16", group_size=128)
    opponents = {"mac", "macs", "mac-pipelined", "mac-dsp", "int8-mac", "int8-mac-dsp"}
    assert set(blocks_of(config)) == {"array", "core", "registers"} | opponents
    module, text = emit_block(config, "core")
    assert f"module {module}(" in text
    assert "scale_tdata" not in text
    with pytest.raises(TernError, match=r"block must be one of array, core, .*, not 'dots'"):
        emit_block(config, "dots")


@pytest.mark.parametrize("name", ["mac", "int8-mac"])
def test_opponents_are_made_by_the_means_of_the_dot_products(name):
    """The ECP5's carry cells spare the masks' LUTs, and a multiplier spares both."""
    options = SynthesisOptions(target=TARGETS["ecp5"])
    areas = []
    for block, dot in ((name, "tree"), (name, "carry"), (f"{name}-dsp", "carry")):
        config = small(activation="fp16", weights="fp16", group_size=128, output="fp16", dot=dot)
        module, text = emit_block(config, block)
        counts = synthesize(text, module, options).counts
        assert counts.dsp == block.endswith("-dsp")
        areas.append(counts.area)
    assert areas == sorted(areas, reverse=True)
    assert len(set(areas)) == 3
