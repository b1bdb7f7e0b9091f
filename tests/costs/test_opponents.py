"""Arrays with multipliers: what they do and move, by a walk of the same schedule."""

from collections import Counter

import pytest

from tern_hw.config import ArrayConfig
from tern_hw.costs import FORMATS, Opponent, count_matmul, count_opponent, load_inputs
from tern_hw.costs.actions import Action
from tern_hw.costs.energy import energy_pj
from tests.costs.walk import tree_step

VALUES = load_inputs("7nm", "lpddr5").values()
ARRAY = ArrayConfig(lanes=16, rows=2, group_size=32, max_k=256)


def walk(form, config, tokens, n, k):
    """Return the arithmetic and the beats of a product, step by step."""
    done = Counter()
    for _ in range(tokens):
        for block in range(0, n, config.rows):
            for _ in range(config.rows):
                for _ in range(0, k, config.lanes):
                    _row_step(form, config, done)
            done["weight_beats"] += -(-k // config.lanes)
            if form.scale_per:
                groups = range(0, k, config.group_size if form.scale_per == "group" else k)
                done["scale_beats"] += len(groups)
            done["result_beats"] += min(config.rows, n - block)
    return done


def _row_step(form, config, done):
    done[form.multiply.component] += config.lanes
    if form.add:
        done[form.add] += config.lanes  # one fewer in the tree, one for the row
        return
    tree = Counter()
    tree_step(tree, config.lanes, form.product_bits)
    for (_, width, _), times in tree.items():
        done["add", width] += times
    done["add", 32] += 1


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_counts_are_those_of_a_walk(form):
    tokens, n, k = 3, 7, 100
    counts = count_opponent(Opponent(form, ARRAY), tokens, n, k)
    found = Counter()
    for action, times in counts.actions.items():
        if action.component in ("add", "multiply", form.multiply.component, form.add):
            key = ("add", action.bits) if action.component == "add" else action.component
            found[key] += times
    for name in ("weight_beats", "scale_beats", "result_beats"):
        found[name] = getattr(counts, name)
    scales = found["scale_beats"] * ARRAY.rows * form.scale_bytes // 2
    expected = walk(form, ARRAY, tokens, n, k)
    assert +found == expected
    assert counts.actions.get(FP32_MUL, 0) == scales


FP32_MUL = Action("fp32_mul")


@pytest.mark.parametrize(
    ("form", "bits"), [("fp16", 16), ("bf16", 16), ("int8", 8 + 16 / 4096), ("int4", 4 + 32 / 128)]
)
def test_bits_per_weight_hold_the_format_s_scales(form, bits):
    counts = count_opponent(Opponent.beside(form, ArrayConfig()), 1, 4096, 4096)
    assert float(counts.bits_per_weight) == bits


def test_the_schedule_is_the_ternary_array_s():
    ours = count_matmul(ArrayConfig(), 2, 1000, 4096)
    theirs = count_opponent(Opponent.beside("fp16", ArrayConfig()), 2, 1000, 4096)
    assert theirs.cycles == ours.cycles
    assert theirs.weight_window_cycles == ours.weight_window_cycles
    assert theirs.macs == ours.macs


def test_an_opponent_never_waits_for_products_in_turn():
    # Of 64 inputs, a row is a single step.
    ours, theirs = [], []
    for products in (1, 2):
        array = ArrayConfig(rows=1, products=products)
        ours.append(count_matmul(array, 1, 1000, 64).cycles)
        theirs.append(count_opponent(Opponent.beside("int4", array), 1, 1000, 64).cycles)
    assert ours[0] - ours[1] == 999
    assert theirs[0] == theirs[1]


def test_a_narrower_format_does_a_product_for_less():
    n = k = 1024
    costs = {
        form: energy_pj(
            count_opponent(Opponent.beside(form, ArrayConfig()), 1, n, k).actions, VALUES
        )[0]
        for form in FORMATS
    }
    ternary, _ = energy_pj(count_matmul(ArrayConfig(), 1, n, k).actions, VALUES)
    assert ternary < costs["int4"] < costs["int8"] < costs["fp16"] < costs["fp16_fp32"]


def test_a_multiply_accumulate_of_fp16_is_the_table_s_sum_and_its_registers():
    counts = count_opponent(Opponent.beside("fp16", ArrayConfig()), 1, 4096, 4096)
    compute, memory = energy_pj(counts.actions, VALUES)
    # A product, a sum, and the registers of both.
    assert compute / counts.macs == pytest.approx(0.34 + 0.16 + 32 * 0.0009, rel=1e-3)
    # A word of 64 activations of 16 bits serves four rows.
    word = 16 * VALUES["energy.sram_32kb"] / 64 / 4
    assert memory / counts.macs == pytest.approx(word, rel=1e-3)


def test_an_array_of_aligned_activations_stands_beside_the_same_opponent():
    plain, aligned = (
        ArrayConfig(activation="fp16", aligned=bits, lanes=16, rows=2, max_k=256)
        for bits in (None, 12)
    )
    for form in FORMATS:
        counts = [
            count_opponent(Opponent.beside(form, array), 2, 7, 100) for array in (plain, aligned)
        ]
        assert counts[0] == counts[1]
