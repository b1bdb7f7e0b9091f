"""Counted registers and multipliers: those of the emitted Verilog, block by block."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tern_hw.config import NAMED_CONFIGS, ArrayConfig
from tern_hw.costs import count_matmul
from tern_hw.costs.actions import (
    Action,
    group_end,
    group_end_units,
    lane_mask,
    memory_register,
    result,
    row_step,
    scale_beat,
    weight_beat,
)
from tern_hw.costs.loading import load_chunk
from tern_hw.gateware.align import ActivationAligner, UnitFinder
from tern_hw.gateware.dot import GroupDot
from tern_hw.gateware.emit import convert
from tern_hw.gateware.lanes import LaneMask
from tern_hw.gateware.scale import ScaleShift

RTL = Path(__file__).resolve().parent.parent.parent / "rtl"


def register_bits(text):
    """Return the bits of the named registers of each module of a Verilog text."""
    bits = Counter()
    for module, body in re.findall(r"^module \\?(\S+)\s*\(.*?\n(.*?)^endmodule", text, re.S | re.M):
        for high, register in re.findall(r"^  reg (?:\[(\d+):0\] )?(\S+)\s+= ", body, re.M):
            if not register.startswith("\\$auto"):  # the writer's own
                bits[module.partition(".")[2]] += int(high or 0) + 1
                if register.startswith("mask"):
                    bits["mask"] += int(high or 0) + 1
    return bits


def counted_bits(actions):
    return sum(
        action.bits * times for action, times in actions.items() if action.component == "register"
    )


@pytest.mark.parametrize("name", NAMED_CONFIGS)
def test_register_bits_are_those_of_the_verilog(name):
    config, bits = NAMED_CONFIGS[name], register_bits((RTL / f"{name}.v").read_text())
    dot = sum(bits[f"core.dot_0{part}"] for part in ("", ".decoder", ".tree"))
    assert counted_bits(row_step(config)) == dot > 0
    assert counted_bits(lane_mask(config)) == bits["mask"]
    assert counted_bits(group_end(config)) == bits["core.scale_0"] > 0
    queue = 2 * (config.result_bits + 1)  # the FIFO is a memory there
    output = bits["core.results"] + bits["core.results.rounder"]
    assert counted_bits(result(config)) - queue == output > 0
    arrived = 8 * config.activation_beat_bytes
    loaded = bits["core.converter"] + bits["core.lanes"] + arrived
    assert counted_bits(load_chunk(config)) == loaded > 0


@pytest.mark.parametrize("name", NAMED_CONFIGS)
def test_the_core_s_wide_registers_are_those_counted(name):
    """At the ports, and behind the memories of activations and scales."""
    config = NAMED_CONFIGS[name]
    (core,) = re.findall(
        r"^module \\\S+\.core .*?^endmodule", (RTL / f"{name}.v").read_text(), re.S | re.M
    )
    widths = [int(high) + 1 for high in re.findall(r"^  reg \[(\d+):0\] \S+\s+= ", core, re.M)]
    counted = [
        8 * config.activation_beat_bytes,
        counted_bits(weight_beat(config)),
        counted_bits(memory_register(config)),
        counted_bits(scale_beat(config)) // 3,
    ]
    assert not Counter(counted) - Counter(widths)


@pytest.mark.parametrize(
    "config",
    [
        ArrayConfig(lanes=8, dot="carry", packing="base3", group_size="row", max_k=64),
        ArrayConfig(lanes=13, dot="carry", activation="fp16", group_size=26, max_k=130),
        ArrayConfig(lanes=20, dot="carry", group_size=40),
        ArrayConfig(lanes=64, dot="carry"),
    ],
    ids=lambda config: config.name,
)
def test_register_bits_of_chains_are_those_of_the_verilog(config):
    bits = register_bits(convert(GroupDot(config), "top"))
    assert bits["tree"] > 0
    assert counted_bits(row_step(config)) == bits[""] + bits["decoder"] + bits["tree"]


@pytest.mark.parametrize(
    ("lanes", "group_size", "bits"), [(8, 16, 8), (16, 8, 12), (9, "row", 16), (8, 8, 40)]
)
def test_register_bits_of_aligning_are_those_of_the_verilog(lanes, group_size, bits):
    config = ArrayConfig(
        lanes=lanes, activation="fp16", aligned=bits, group_size=group_size, max_k=64
    )
    blocks = (UnitFinder, ActivationAligner, LaneMask)
    loaded = [register_bits(convert(block(config), "top"))[""] for block in blocks]
    assert counted_bits(load_chunk(config)) == sum(loaded) + 16 * lanes
    assert min(loaded) > 0


@pytest.mark.parametrize("bits", [8, 12, 16, 40])
def test_register_bits_of_aligned_arrays_are_those_of_the_verilog(bits):
    config = ArrayConfig(lanes=8, rows=1, activation="fp16", aligned=bits, group_size=16, max_k=64)
    assert counted_bits(row_step(config)) == sum(
        register_bits(convert(GroupDot(config), "top")).values()
    )
    scales = register_bits(convert(ScaleShift(config), "top"))
    assert counted_bits(group_end(config)) == scales[""] > 0


@pytest.mark.parametrize(
    "fields", [{}, {"activation": "fp16"}, {"activation": "fp16", "aligned": 12}], ids=str
)
@pytest.mark.parametrize("products", [1, 2])
def test_units_of_scale_and_shift_are_those_of_the_verilog(fields, products):
    config = ArrayConfig(lanes=8, group_size=16, max_k=64, products=products, **fields)
    text = convert(ScaleShift(config), "top")
    counted = group_end_units(config)
    assert counted_bits(counted) == register_bits(text)[""]
    assert counted[Action("multiply", bits=config.sum_bits, by=14)] == text.count(" * ") == products


def test_chains_add_as_often_as_a_tree_and_have_more_registers():
    tree, chains = (count_matmul(ArrayConfig(dot=dot), 1, 8, 256) for dot in ("tree", "carry"))
    assert sum(tree.adds_by_bits.values()) == sum(chains.adds_by_bits.values())
    registers = [counted_bits(each.actions) for each in (tree, chains)]
    assert registers[0] < registers[1]
