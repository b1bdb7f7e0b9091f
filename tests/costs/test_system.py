"""Whole models on a system: bytes and stack by hand, what bounds what, and what grows with what."""

import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tern_hw.config import ArrayConfig
from tern_hw.costs import (
    Opponent,
    System,
    TableArea,
    beside,
    bracket,
    catalogue,
    count_matmul,
    decode,
    estimate,
    load_inputs,
    prefill,
    ratios,
    tornado,
)
from tern_hw.costs.comparison import linear_energy, memory_roof, opponent_system
from tern_hw.costs.models import model_from_config
from tern_hw.errors import TernError

INPUTS = load_inputs("7nm", "lpddr5")
VALUES = INPUTS.values()
SMOLLM2 = catalogue()["smollm2-135m"]
SYSTEM = System(engine=ArrayConfig(packing="base3"), clock_mhz=500)
#: A model that is estimated in a moment.
SMALL = model_from_config(
    {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 500,
        "max_position_embeddings": 4096,
    },
    "small",
    "a test",
)


def by_kind(found):
    return {each.kind: each for each in found.kinds}


def test_a_token_s_bytes_by_hand():
    """SmolLM2: 30 blocks of 576 x 576 (2), 192 x 576 (2), 1536 x 576 (2), 576 x 1536."""
    kinds = by_kind(estimate(SYSTEM, decode(SMOLLM2, 1000), VALUES))
    # A row of 576 is 9 beats of 13 bytes and 5 groups of 4; one of 1536, 24 and 12.
    short, long = 9 * 13 + 5 * 4, 24 * 13 + 12 * 4
    assert kinds["attention linears"].bytes == 30 * (2 * 576 + 2 * 192) * short
    assert kinds["mlp linears"].bytes == 30 * (2 * 1536 * short + 576 * long)
    assert kinds["lm_head"].bytes == 2 * 49152 * 576
    assert kinds["embedding"].bytes == 2 * 576
    # Keys and values of 3 heads of 64 in fp16: a thousand read, one written.
    assert kinds["attention"].bytes == 30 * 2 * 192 * 2 * 1001
    assert kinds["attention"].macs == 30 * 2 * 9 * 64 * 1000


def test_a_prompt_reads_the_cache_of_the_tokens_before_each():
    phase = prefill(SMALL, 5)
    found = by_kind(estimate(SYSTEM, phase, VALUES))
    pairs = 1 + 2 + 3 + 4 + 5
    assert found["attention"].macs == 2 * 2 * 128 * pairs
    assert found["attention"].kv_bytes == 2 * 2 * 256 * (pairs + 5)
    single = by_kind(estimate(SYSTEM, decode(SMALL, 5), VALUES))
    assert found["mlp linears"].bytes == 5 * single["mlp linears"].bytes
    # Only the last token passes the head.
    assert found["lm_head"].bytes == single["lm_head"].bytes


def test_the_stack_is_the_sum_of_the_kinds():
    found = estimate(SYSTEM, decode(SMOLLM2, 500), VALUES)
    assert sum(found.stack.values()) == pytest.approx(sum(e.energy.total for e in found.kinds))
    linear = linear_energy(found)
    assert found.stack["compute"] == pytest.approx(linear.compute)
    assert found.stack["weights"] == pytest.approx(8 * 9.0 * 25_159_680)
    assert found.joules_per_token == pytest.approx(sum(found.stack.values()) / 1e12)


def test_stalls_and_bound_follow_the_bandwidth():
    starved = load_inputs("7nm", "lpddr5").replaced("memory.bandwidth", 0.1, "a test, 2026")
    slow = by_kind(estimate(SYSTEM, decode(SMALL, 100), starved.values()))
    assert slow["mlp linears"].bound == "weights"
    assert slow["attention"].bound == "KV"
    fast = by_kind(estimate(SYSTEM, decode(SMALL, 100), load_inputs("7nm", "sram").values()))
    assert fast["mlp linears"].bound == "compute"
    assert all(each.stall_cycles == 0 for each in fast.values())
    ample = INPUTS.replaced("memory.bandwidth", 1e4, "a test, 2026").values()
    rich = by_kind(estimate(SYSTEM, decode(SMALL, 100), ample))
    assert rich["mlp linears"].stall_cycles == rich["lm_head"].stall_cycles == 0
    assert rich["mlp linears"].bound == "compute"
    # By hand: up_proj's jobs at 0.1 GB/s and 500 MHz, a fifth of a byte a cycle.
    counts = count_matmul(SYSTEM.engine, 1, 256, 128)
    down = count_matmul(SYSTEM.engine, 1, 128, 256)
    rate = Fraction(1, 5)
    assert slow["mlp linears"].stall_cycles == 2 * (
        2 * counts.stall_cycles(rate) + down.stall_cycles(rate)
    )


def test_ternary_linears_take_the_formula_s_cycles():
    found = by_kind(estimate(SYSTEM, decode(SMOLLM2, 10), VALUES))
    job = SYSTEM.engine.job_cycles
    each = 2 * job(576, 576) + 2 * job(192, 576)
    assert found["attention linears"].cycles == 30 * each
    assert found["mlp linears"].cycles == 30 * (2 * job(1536, 576) + job(576, 1536))


@settings(max_examples=25)
@given(context=st.integers(1, 2000), more=st.integers(1, 2000), batch=st.integers(1, 9))
def test_a_longer_context_takes_more_of_everything(context, more, batch):
    small = estimate(SYSTEM, decode(SMALL, context, batch), VALUES)
    large = estimate(SYSTEM, decode(SMALL, context + more, batch), VALUES)
    assert large.joules_per_token > small.joules_per_token
    assert large.bytes_per_token > small.bytes_per_token
    assert large.cycles > small.cycles
    # A batch is so many jobs: it shares the norms' weights, and nothing else.
    one = estimate(SYSTEM, decode(SMALL, context), VALUES)
    shared = 2 * SMALL.small_parameters * (1 - 1 / batch)
    assert one.bytes_per_token - small.bytes_per_token == pytest.approx(shared)
    saved = 8 * 9.0e-12 * shared
    assert one.joules_per_token - small.joules_per_token == pytest.approx(saved, abs=1e-12)
    assert small.tokens_per_second == pytest.approx(one.tokens_per_second, rel=0.01)


@settings(max_examples=25)
@given(rate=st.floats(0.01, 1000), factor=st.floats(1, 100))
def test_more_bandwidth_is_never_slower(rate, factor):
    speeds = [
        estimate(
            SYSTEM, decode(SMALL, 64), INPUTS.replaced("memory.bandwidth", each, "a test").values()
        ).tokens_per_second
        for each in (rate, rate * factor)
    ]
    assert speeds[0] <= speeds[1]


def test_half_an_artifact_leaves_its_other_layers_to_the_companion():
    whole = by_kind(estimate(SYSTEM, decode(SMALL, 10), VALUES))
    none = by_kind(estimate(SYSTEM, decode(SMALL, 10, ternary={}), VALUES))
    half = {"mlp.up_proj": 1}
    some = by_kind(estimate(SYSTEM, decode(SMALL, 10, ternary=half), VALUES))
    up = count_matmul(SYSTEM.engine, 1, 256, 128).streamed_bytes
    assert none["mlp linears"].bytes == 2 * 3 * 2 * 128 * 256
    assert some["mlp linears"].bytes == none["mlp linears"].bytes - 2 * 128 * 256 + up
    assert whole["mlp linears"].bytes < some["mlp linears"].bytes


def test_equal_lanes_area_and_bandwidth():
    found = estimate(SYSTEM, decode(SMOLLM2, 500), VALUES)
    rows = {each.form: each for each in beside(found, INPUTS, VALUES)}
    assert set(rows) == {"fp16", "fp16_fp32", "bf16", "int8", "int4"}
    area = TableArea(VALUES)
    for each in rows.values():
        assert each.lanes.system.array.lanes == 64
        assert each.area.area_mm2 == pytest.approx(found.area_mm2, rel=1e-3)
        assert each.area.tokens_per_second <= each.lanes.tokens_per_second
        assert each.lanes.tokens_per_second <= each.roof
        assert each.lanes.joules_per_token > found.joules_per_token
        assert area.mm2(each.lanes.system.engine) > area.mm2(SYSTEM.engine)
    assert found.tokens_per_second <= memory_roof(found, VALUES)


def test_a_format_that_the_technology_lacks_is_said_not_guessed():
    inputs = load_inputs("45nm", "ddr4")
    found = estimate(SYSTEM, decode(SMALL, 10), inputs.values())
    rows = {each.form: each for each in beside(found, inputs, inputs.values())}
    assert rows["bf16"].lanes is None
    assert "bf16" in rows["bf16"].missing
    assert rows["fp16"].lanes is not None


def test_ratios_lie_between_the_memory_s_and_the_quoted_one():
    found = estimate(SYSTEM, decode(SMOLLM2, 500), VALUES)
    fp16 = estimate(opponent_system(SYSTEM, "fp16"), decode(SMOLLM2, 500), VALUES)
    told = ratios(found, fp16, VALUES)
    assert told.quoted == pytest.approx(71.43, abs=0.01)
    # K = 576 is four groups and a half, so a scale more: 16 / 1.896.
    assert told.memory == pytest.approx(16 * 106_168_320 / 8 / 25_159_680)
    assert told.token < told.linears < max(told.compute, told.memory) < told.quoted
    assert told.on_chip < min(told.linears, told.compute)
    whole = estimate(SYSTEM, decode(catalogue()["llama-2-7b"], 500), VALUES)
    other = estimate(
        opponent_system(SYSTEM, "fp16"), decode(catalogue()["llama-2-7b"], 500), VALUES
    )
    assert ratios(whole, other, VALUES).memory == pytest.approx(16 / 1.875)


def test_the_tornado_finds_what_moves_the_answer_and_the_bracket_its_ends():
    def answer(values):
        return estimate(SYSTEM, decode(SMALL, 100), values).joules_per_token

    swings = tornado(INPUTS, answer)
    assert swings[0].key == "memory.energy"
    assert [swing.width for swing in swings] == sorted((s.width for s in swings), reverse=True)
    zeros = next(swing for swing in swings if swing.key == "data.zero_fraction")
    assert zeros.high < zeros.low  # more zeros, less energy
    found = bracket(INPUTS, answer, swings)
    assert found.low < found.mid == answer(VALUES) < found.high
    assert found.low <= min(min(swing.low, swing.high) for swing in swings)
    assert found.high >= max(max(swing.low, swing.high) for swing in swings)
    # Zeros stand at their high end where the energy is least.
    worst = INPUTS.values("low")
    assert found.low < answer(worst)


@pytest.mark.parametrize("clock", [0, -1, 1e9, float("nan"), float("inf")])
def test_an_absurd_clock_is_refused(clock):
    with pytest.raises(TernError, match=r"^clock must be from 0\.001 to 10000 MHz, not"):
        dataclasses.replace(SYSTEM, clock_mhz=clock)


@pytest.mark.parametrize("macs", [0, 31, 66, 5000, 64.0])
def test_an_absurd_companion_is_refused(macs):
    with pytest.raises(
        TernError, match=r"^float_macs must be a multiple of 4 from 32 to 4096, not"
    ):
        dataclasses.replace(SYSTEM, float_macs=macs)


def test_an_array_that_is_not_counted_is_no_engine():
    array = ArrayConfig(activation="fp16", weights="fp16")
    with pytest.raises(
        TernError, match="weights must be ternary where actions are counted, not fp16"
    ):
        System(engine=array, clock_mhz=500)


def test_waiting_counts_where_the_bound_is_told():
    # At 20 GB/s weights take most of the time, and most of that is waiting.
    slow = INPUTS.replaced("memory.bandwidth", 20, "a test, 2026").values()
    found = estimate(SYSTEM, decode(SMALL, 100), slow)
    taken = {}
    for each in found.kinds:
        taken[each.bound] = taken.get(each.bound, 0) + each.cycles + each.stall_cycles
    assert found.bound == max(taken, key=taken.get) == "weights"


def test_a_context_beyond_the_model_is_refused():
    with pytest.raises(TernError, match="context must be at most 8192 tokens for smollm2-135m"):
        decode(SMOLLM2, 8193)


def test_an_engine_of_fp16_takes_the_head_and_one_of_int8_does_not():
    head = {}
    for form in ("fp16", "int8"):
        system = dataclasses.replace(SYSTEM, engine=Opponent.beside(form, ArrayConfig()))
        head[form] = by_kind(estimate(system, decode(SMOLLM2, 10), VALUES))["lm_head"]
    assert head["fp16"].bytes == head["int8"].bytes == 2 * 49152 * 576
    assert head["fp16"].cycles < head["int8"].cycles


@pytest.mark.parametrize("name", ["llama-2-7b", "opt-350m", "bitnet-2b4t"])
def test_fp16_reads_every_parameter_once_a_token(name):
    """Two bytes each; of the tables of tokens and positions one row, unless the head is one."""
    model, context = catalogue()[name], 100
    array = ArrayConfig(lanes=32, rows=2, max_k=1 << 14)  # divides every dimension
    system = System(engine=Opponent.beside("fp16", array), clock_mhz=500)
    found = estimate(system, decode(model, context), VALUES)
    tables = model.positions * model.hidden
    tables += 0 if model.tied else model.vocabulary * model.embedding
    rows = model.embedding + (model.hidden if model.positions else 0)
    cache = model.layers * 2 * model.kv_heads * model.head_dim * (context + 1)
    assert found.bytes_per_token == 2 * (model.parameters - tables + rows + cache)


def test_weights_that_are_kept_are_fetched_once_a_prompt():
    phase = prefill(SMALL, 6)
    plain = opponent_system(SYSTEM, "fp16")
    found = {
        reuse: by_kind(estimate(dataclasses.replace(plain, reuse=reuse), phase, VALUES))
        for reuse in (1, 4, 6, 100)
    }
    linears = {reuse: kinds["mlp linears"] for reuse, kinds in found.items()}
    once = 2 * 2 * 3 * 128 * 256
    assert {reuse: each.bytes for reuse, each in linears.items()} == {
        1: 6 * once,
        4: 2 * once,
        6: once,
        100: once,
    }
    assert linears[1].cycles == linears[100].cycles
    assert linears[1].stall_cycles >= linears[4].stall_cycles >= linears[100].stall_cycles
    with pytest.raises(TernError, match="reuse must be a positive integer, not 0"):
        dataclasses.replace(plain, reuse=0)


def test_memory_on_the_chip_takes_area():
    values = load_inputs("7nm", "sram").values()
    found = estimate(SYSTEM, decode(SMALL, 100, batch=3), values)
    moved = by_kind(found)
    linears = (moved["attention linears"].bytes + moved["mlp linears"].bytes) / 3
    head = table = 2 * 500 * 128
    cache = 3 * 100 * 2 * 2 * 128 * 2
    norms = 2 * 5 * 128
    stored = linears + head + table + cache + norms
    assert found.banks_mm2 == pytest.approx(8 * stored * 0.039 / 1e6)
    assert found.area_mm2 == pytest.approx(found.banks_mm2 + SYSTEM.area_mm2(TableArea(values)))
    assert estimate(SYSTEM, decode(SMALL, 100), VALUES).banks_mm2 == 0


def test_leakage_is_power_times_area_times_time():
    found = estimate(SYSTEM, decode(SMALL, 100), VALUES)
    joules = 0.92e-3 * found.area_mm2 * found.seconds
    assert found.stack["static"] == pytest.approx(joules * 1e12)
