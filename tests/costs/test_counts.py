"""Action counts: equal to a walk of the schedule, to the beats, and to what the Verilog has."""

import dataclasses
import re
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tern_hw.beats import activation_beats, scale_beats, weight_beats
from tern_hw.config import ArrayConfig
from tern_hw.costs import count_matmul
from tern_hw.costs.actions import (
    MUX_GATES,
    Action,
    group_end,
    group_end_units,
    lane_mask,
    normalised_bits,
    result,
    row_step,
    sum_word,
)
from tern_hw.costs.area import units
from tern_hw.costs.fpga import features
from tern_hw.costs.loading import load_chunk, unit_word
from tern_hw.costs.pace import Pace, paced_job
from tern_hw.errors import TernError
from tern_hw.gateware.emit import convert
from tern_hw.gateware.rounder import Rounder
from tests.costs.walk import walk
from tests.layers import random_layer

CASES = {
    "default": (ArrayConfig(max_k=512), 2, 10, 300),
    "one row": (ArrayConfig(lanes=8, rows=1, group_size="row", max_k=64), 1, 3, 20),
    "segments": (ArrayConfig(lanes=32, rows=3, group_size=8, packing="base3", max_k=99), 1, 7, 77),
    "odd lanes": (ArrayConfig(lanes=13, rows=2, group_size=26, max_k=130), 3, 5, 100),
    "fp16": (
        ArrayConfig(lanes=8, rows=2, activation="fp16", output="fp16", group_size=16, max_k=64),
        1,
        5,
        40,
    ),
    "smollm2": (ArrayConfig(packing="base3", max_k=1536), 1, 96, 576),
    "chains": (ArrayConfig(lanes=20, rows=2, group_size=40, dot="carry", max_k=200), 2, 5, 90),
    "fp16 chains": (
        ArrayConfig(lanes=64, rows=1, activation="fp16", dot="carry", max_k=512),
        1,
        3,
        200,
    ),
    "aligned": (
        ArrayConfig(
            lanes=32,
            rows=2,
            activation="fp16",
            aligned=12,
            group_size=8,
            packing="base3",
            max_k=256,
        ),
        2,
        9,
        200,
    ),
    "aligned wide": (
        ArrayConfig(lanes=16, rows=3, activation="fp16", aligned=20, group_size=32, max_k=128),
        1,
        4,
        100,
    ),
    "in turn": (ArrayConfig(lanes=16, rows=3, group_size=32, products=1, max_k=200), 2, 7, 144),
    "one weight": (ArrayConfig(lanes=16, rows=4, max_k=128), 1, 1, 1),
}


def observed(counts):
    """Return counts in the walk's keys."""
    found = Counter()
    for action, times in counts.actions.items():
        key = {
            "add": ("add", action.bits, action.lanes),
            "multiply": ("multiply", action.bits, action.by),
            "read": ("read", action.bits),
            "write": ("write", action.bits),
        }.get(action.component)
        if key:
            found[key] += times
    names = ("load_steps", "compute_steps", "group_sums")
    names += tuple(f"{stream}_beats" for stream in ("activation", "weight", "scale", "result"))
    return found + Counter({name: getattr(counts, name) for name in names})


@pytest.mark.parametrize("case", CASES)
def test_counts_are_those_of_a_walk(case):
    assert observed(count_matmul(*CASES[case])) == walk(*CASES[case])


@pytest.mark.parametrize("case", [name for name in CASES if CASES[name][0].lanes not in (13, 20)])
def test_bytes_are_those_of_the_beats(case):
    config, tokens, n, k = CASES[case]
    rng = np.random.default_rng(3)
    matrix, _ = random_layer(rng, n, k, config.group_size)
    kind = np.int8 if config.activation == "int8" else np.float16
    counts = count_matmul(config, tokens, n, k)
    assert counts.weight_bytes == tokens * weight_beats(matrix, config).size
    assert counts.scale_bytes == tokens * scale_beats(matrix, config).size
    beats = activation_beats(np.zeros(k, kind), config)
    assert counts.activation_bytes == tokens * beats.size
    assert counts.result_bytes == tokens * n * (4 if config.output == "fp32" else 2)


@pytest.mark.parametrize("case", CASES)
def test_cycles_are_those_of_the_jobs(case):
    config, tokens, n, k = CASES[case]
    counts = count_matmul(config, tokens, n, k)
    assert counts.cycles == tokens * config.job_cycles(n, k)
    steps = counts.load_steps + counts.compute_steps
    assert counts.cycles >= steps
    assert counts.weight_window_cycles >= counts.compute_steps // tokens


def test_products_in_turn_are_as_many_by_half_the_units():
    both, turn = (ArrayConfig(products=products, max_k=512) for products in (2, 1))
    multiply = Action("multiply", bits=16, by=14)
    assert group_end(both)[multiply] == group_end(turn)[multiply] == 2
    assert group_end_units(both) == group_end(both)
    assert group_end_units(turn)[multiply] == 1
    assert {each: 2 * times for each, times in group_end_units(turn).items()} == group_end(turn)
    assert units(turn)[multiply] == 4 < units(both)[multiply]
    # A sum and a factor, each of two.
    assert group_end(turn)[Action("gate", bits=MUX_GATES * (16 + 16))] == 2


@pytest.mark.parametrize("name", ["default", "one row", "fp16", "aligned"])
def test_bits_chosen_by_the_rounder_s_shifts_are_those_of_the_verilog(name):
    config = CASES[name][0]
    text = convert(Rounder(config), "top")
    found = re.findall(r"^  reg \[(\d+):0\] normal_(\d+)\b", text, flags=re.MULTILINE)
    after = [int(top) + 1 for top, _ in sorted(found, key=lambda each: int(each[1]))]
    # Each shift chooses of what the one before left; the last two of the same.
    before = [config.accumulator_bits - 1, *after[:-1]]
    assert len(after) > 2
    assert normalised_bits(config) == sum(before) + before[-1]


def test_one_row_s_result_needs_no_choice():
    config = CASES["default"][0]
    for rows in (1, 2, 4):
        array = dataclasses.replace(config, rows=rows)
        chosen = (rows - 1) * config.accumulator_bits
        assert result(array)[Action("gate", bits=MUX_GATES * chosen)] == 1
        assert features(array)["results"]["selected_bits"] == chosen


def test_a_step_of_aligned_activations_joins_no_signs():
    exact = ArrayConfig(lanes=8, activation="fp16", group_size=16)
    joined = Action("gate", bits=2 * 8)
    assert row_step(exact)[joined] == 1
    assert row_step(dataclasses.replace(exact, aligned=16))[joined] == 0


def test_the_lane_mask_is_found_once_a_step_for_all_rows():
    # 10 outputs are three blocks of four rows; 300 inputs five steps, and five to load them.
    actions = count_matmul(ArrayConfig(max_k=512), 2, 10, 300).actions
    assert lane_mask(ArrayConfig())[Action("gate", bits=2 * 64)] == 1
    assert actions[Action("gate", bits=2 * 64)] == 2 * (1 + 3) * 5


def test_beats_and_words_pass_a_register():
    # As above: three blocks, five steps; two tokens. Widths that nothing else has.
    config = ArrayConfig(lanes=64, rows=3, packing="base3", max_k=512)
    actions = count_matmul(config, 2, 9, 300).actions
    assert actions[Action("register", bits=8 * 3 * 13)] == 2 * 3 * 5
    wide = ArrayConfig(lanes=24, rows=1, activation="fp16", group_size=24, max_k=512)
    actions = count_matmul(wide, 1, 2, 96).actions
    # 24 activations of 41 bits read for each of four steps, while they are loaded and twice more.
    assert actions[Action("register", bits=24 * 41)] == (1 + 2) * 4


def test_a_group_s_sum_waits_in_a_memory_of_all_groups():
    config = ArrayConfig(lanes=32, group_size=8, max_k=1000)
    bits = config.sum_bits
    word = Action("read", bits=bits, capacity_bytes=-(-bits * 125 // 8))
    assert sum_word(config, "read") == word
    assert count_matmul(config, 1, 8, 80).actions[word] == 2 * 10


def test_units_are_a_row_s_times_rows_and_what_the_rows_share_once():
    config = ArrayConfig(packing="base3", max_k=512)
    shared = result(config) + load_chunk(config) + lane_mask(config)
    shared[Action("register", bits=8 * 16)] += 3  # scales and shifts of four rows
    shared[Action("register", bits=8 * 4 * 13)] += 1  # weights
    shared[Action("register", bits=8 * 64)] += 1  # activations
    shared[sum_word(config, "write")] += 1
    row = row_step(config) + group_end(config)
    assert units(config) == Counter({each: 4 * times for each, times in row.items()}) + shared


@pytest.mark.parametrize(
    "count",
    [lambda c: count_matmul(c, 1, 4, 4), lambda c: paced_job(c, 4, 4, Pace()), row_step],
    ids=["matmul", "paced", "step"],
)
def test_an_array_that_is_not_counted_is_refused(count):
    sentence = "weights must be ternary where actions are counted, not fp16"
    with pytest.raises(TernError, match=f"^{sentence}$"):
        count(ArrayConfig(activation="fp16", weights="fp16"))


def test_aligned_activations_wait_in_a_memory_of_their_own():
    config = ArrayConfig(activation="fp16", aligned=12, max_k=1024)
    actions = count_matmul(config, 3, 4, 256).actions
    for component in ("write", "read"):
        assert actions[Action(component, bits=64 * 16, capacity_bytes=1024 * 2)] == 3 * 4
    assert actions[Action("write", bits=64 * 12, capacity_bytes=1024 * 12 // 8)] == 3 * 4
    # As wide as what is aligned: still two memories.
    same = dataclasses.replace(config, aligned=16)
    assert load_chunk(same)[Action("write", bits=64 * 16, capacity_bytes=1024 * 2)] == 2


def test_units_wait_in_a_memory_of_all_groups_or_of_all_beats():
    config = ArrayConfig(activation="fp16", aligned=12, max_k=1024)
    # u is at most 29: five bits; a word a group of 128, or one of four groups a beat of 64.
    word = Action("read", bits=5, capacity_bytes=5)
    assert unit_word(config, "read") == word
    narrow = dataclasses.replace(config, group_size=16)
    assert unit_word(narrow, "read") == Action("read", bits=20, capacity_bytes=40)
    # 256 inputs: 4 words are aligned, 2 groups scaled, a token.
    assert count_matmul(config, 3, 4, 256).actions[word] == 3 * (4 + 2)


def test_a_tree_has_an_adder_less_than_lanes_and_grows_a_bit_a_level():
    counts = count_matmul(ArrayConfig(max_k=128), 1, 4, 64)
    adds = counts.adds_by_bits
    # Two steps, loading and computing, of four rows: 32, 16, ... 1 adders.
    assert [adds[bits] for bits in (9, 10, 11, 12, 13, 14)] == [
        8 * 2**at for at in range(5, -1, -1)
    ]
    # 624 bits of tree and 16 of the group's sum over 64 adds.
    assert counts.mean_tree_bits == Fraction(640, 64)


@pytest.mark.parametrize(
    ("packing", "bits"),
    [("2bit", Fraction(9, 4)), ("base3", Fraction(13 * 8, 64) + Fraction(1, 4))],
)
def test_bits_per_weight_hold_scales_and_padding(packing, bits):
    counts = count_matmul(ArrayConfig(packing=packing), 5, 4096, 4096)
    assert counts.bits_per_weight == bits


def test_stalls_are_what_the_bytes_take_beyond_the_window():
    counts = count_matmul(ArrayConfig(max_k=128), 3, 16, 128)
    # 4 row blocks of 2 beats of 64 bytes and a scale beat of 16: 576 bytes in 4 x 4 cycles,
    # as a block of two steps waits for four rows in the rounder; the last is two steps.
    assert counts.streamed_bytes == 3 * 576
    assert counts.weight_window_cycles == 3 * 4 + 2
    assert counts.needed_bytes_per_cycle == Fraction(576, 14)
    assert counts.stall_cycles(None) == 0
    assert counts.stall_cycles(counts.needed_bytes_per_cycle) == 0
    assert counts.stall_cycles(Fraction(10)) == 3 * (58 - 14)


@settings(max_examples=40)
@given(
    n=st.integers(1, 300),
    k=st.integers(1, 500),
    more=st.integers(1, 200),
    rate=st.fractions(Fraction(1, 10), 200),
)
def test_nothing_falls_as_a_product_grows(n, k, more, rate):
    config = ArrayConfig(lanes=32, rows=4, group_size=16, max_k=1024, packing="base3")
    small = count_matmul(config, 1, n, k)
    for large in (count_matmul(config, 1, n + more, k), count_matmul(config, 1, n, k + more)):
        assert large.cycles >= small.cycles
        assert large.streamed_bytes >= small.streamed_bytes
        assert sum(large.actions.values()) >= sum(small.actions.values())
    assert small.stall_cycles(rate * 2) <= small.stall_cycles(rate)
    assert count_matmul(config, 7, n, k).cycles == 7 * small.cycles


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((0, 1, 1), r"m \(tokens\) must be an integer from 1 to 1073741824, not 0"),
        ((1, 70000, 1), r"n \(outputs\) must be an integer from 1 to 65536, not 70000"),
        ((1, 1, 16385), r"k \(inputs\) must be an integer from 1 to 16384, not 16385"),
        ((1, 1.0, 1), r"n \(outputs\) must be an integer from 1 to 65536, not 1.0"),
    ],
)
def test_a_product_beyond_the_array_is_refused(shape, sentence):
    with pytest.raises(TernError, match=f"^{sentence}$"):
        count_matmul(ArrayConfig(), *shape)
