"""`ArrayConfig`: what it refuses, and that its widths hold the largest values, and no more."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tern_hw.config import FP16_MAX_UNITS, NAMED_CONFIGS, ArrayConfig
from tern_hw.errors import TernError

CONFIGS = st.builds(
    lambda lanes, rows, activation, group, packing, output, max_k: ArrayConfig(
        lanes=lanes,
        rows=rows,
        activation="fp16" if isinstance(activation, int) else activation,
        aligned=activation if isinstance(activation, int) else None,
        group_size="row" if group == "row" else lanes,
        packing=packing,
        output=output,
        max_k=max_k,
    ),
    st.integers(8, 1024),
    st.integers(1, 16),
    st.one_of(st.sampled_from(["int8", "fp16"]), st.integers(8, 40)),
    st.sampled_from(["row", "lanes"]),
    st.sampled_from(["2bit", "base3"]),
    st.sampled_from(["fp32", "fp16"]),
    st.integers(1, 65536),
)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lanes", 0),
        ("lanes", -1),
        ("lanes", 7),
        ("lanes", 1025),
        ("lanes", "abc"),
        ("lanes", 64.0),
        ("lanes", True),
        ("rows", 0),
        ("rows", 17),
        ("activation", "bf16"),
        ("packing", "base2"),
        ("output", "fp64"),
        ("dot", "magic"),
        ("aligned", 7),
        ("aligned", 41),
        ("aligned", 16.0),
        ("aligned", True),
        ("group_size", 0),
        ("group_size", -64),
        ("group_size", 96),
        ("group_size", "column"),
        ("group_size", 2.0),
        ("max_k", 0),
        ("max_k", 65537),
        ("max_n", 0),
        ("max_n", 1048577),
        ("weights", "int4"),
        ("products", 0),
        ("products", 3),
        ("products", True),
        ("products", "1"),
    ],
)
def test_bad_field_is_refused_in_one_sentence(field, value):
    with pytest.raises(TernError, match=rf"^{field} must be .*, not {value!r}$") as error:
        ArrayConfig(**{field: value})
    assert "\n" not in str(error.value)


def test_63_lanes_refuse_groups_of_128():
    with pytest.raises(TernError, match=r"multiple of lanes .*\(lanes = 63\), not 128"):
        ArrayConfig(lanes=63)
    assert ArrayConfig(lanes=63, group_size=126).group_steps == 2
    assert ArrayConfig(lanes=63, group_size=21).segments == 3
    assert ArrayConfig(lanes=63, group_size="row").segments == 1


def test_aligned_int8_is_refused():
    with pytest.raises(TernError, match=r"^aligned must stand beside activation fp16, not int8$"):
        ArrayConfig(aligned=16)


def test_group_beyond_max_k_is_refused():
    with pytest.raises(TernError, match=r"^group_size must be at most max_k \(= 100\)"):
        ArrayConfig(max_k=100)


@given(CONFIGS)
def test_widths_hold_the_extremes_and_no_more(config):
    group = config.max_k if config.group_size == "row" else min(config.lanes, config.max_k)
    for bits, largest in (
        (config.sum_bits, group * config.fixed_max),
        (
            config.accumulator_bits,
            config.max_k * (config.fixed_max << config.unit_max) * 2 * FP16_MAX_UNITS,
        ),
    ):
        assert largest < 1 << (bits - 1)
        assert largest >= 1 << (bits - 2)


def test_widths_are_those_of_the_design():
    int8, fp16 = ArrayConfig(), ArrayConfig(activation="fp16")
    assert (fp16.fixed_bits, fp16.sum_bits, fp16.accumulator_bits) == (41, 48, 96)
    assert (int8.fixed_bits, int8.sum_bits, int8.accumulator_bits) == (8, 16, 63)
    assert ArrayConfig(packing="base3").weight_beat_bytes == 4 * 13


@pytest.mark.parametrize("bits", range(8, 41))
def test_aligned_widths_reach_from_the_largest_binary16_to_its_unit(bits):
    config = ArrayConfig(activation="fp16", aligned=bits)
    assert config.fixed_bits == bits
    # The largest in the largest unit: no bit is missing, and none is idle.
    assert config.fixed_max.bit_length() == bits - 1
    assert (FP16_MAX_UNITS >> config.unit_max).bit_length() == bits - 1
    assert config.fixed_max << config.unit_max <= FP16_MAX_UNITS
    assert config.accumulator_fraction_bits == 48
    assert (config.sum_bits, config.accumulator_bits) == (bits + 7, 96)


@pytest.mark.parametrize("config", NAMED_CONFIGS.values(), ids=NAMED_CONFIGS)
def test_dict_round_trips_through_json(config):
    assert ArrayConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_unknown_field_is_refused():
    with pytest.raises(TernError, match="not 'lane'"):
        ArrayConfig.from_dict({"lane": 8})


def test_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ArrayConfig().lanes = 8


@given(CONFIGS, st.integers(1, 300), st.integers(1, 300))
def test_name_tells_configurations_apart(config, max_n, max_k):
    other = dataclasses.replace(config, max_n=max_n, max_k=max(max_k, config.lanes))
    assert (other.name == config.name) == (other == config)


def test_name_tells_the_width_of_aligned_activations():
    names = [ArrayConfig(activation="fp16", aligned=bits).name for bits in (None, 8, 16)]
    groups = ["fp16", "fp16a8", "fp16a16"]
    assert names == [f"tern_64x4_{activation}_g128_2bit" for activation in groups]


@pytest.mark.parametrize("group_size", [64, 32])
def test_products_in_turn_need_groups_of_two_steps(group_size):
    with pytest.raises(TernError, match=rf"\(group_size = {group_size}, lanes = 64\), not 1$"):
        ArrayConfig(products=1, group_size=group_size)
    assert ArrayConfig(products=1, group_size="row").name == "tern_64x4_int8_row_2bit_p1"


@pytest.mark.parametrize(
    ("group_size", "k", "more"),
    # Groups of 128 are two steps: 576 is four and a half, whose last one waits.
    [(128, 512, 0), (128, 576, 1), (128, 64, 0), (192, 448, 1), (192, 512, 0), ("row", 64, 0)],
)
def test_products_in_turn_take_a_cycle_more_where_a_row_ends_with_a_single_step(
    group_size, k, more
):
    both, turn = (ArrayConfig(group_size=group_size, products=products) for products in (2, 1))
    assert turn.latency_cycles == both.latency_cycles
    # Ten row blocks, and what each waits for.
    assert turn.job_cycles(40, k) - both.job_cycles(40, k) == 10 * more
    one, two = (dataclasses.replace(config, rows=1) for config in (both, turn))
    blocks = 0 if k > 64 else 39  # of a single step: none directly after another
    assert two.job_cycles(40, k) - one.job_cycles(40, k) == 40 * more + blocks


# --------------------------------------------------------------------- binary16 weights


PLAIN = ArrayConfig(activation="fp16", weights="fp16")


def test_binary16_weights_have_no_scales_and_a_context_a_register_of_the_loop():
    assert PLAIN.input_streams == ("activation", "weight")
    assert PLAIN.weight_beat_bytes == 64 * 4 * 2
    assert PLAIN.mac_contexts == 7
    assert PLAIN.block_outputs == 64 * 4 * 7
    assert PLAIN.name == "mac_64x4_fp16"
    assert ArrayConfig.from_dict(PLAIN.as_dict()) == PLAIN


def test_a_job_of_binary16_weights_takes_a_step_an_input_and_context():
    # Load of 9 chunks, a gap, 576 * 7 steps, the way of a sum, 1536 results.
    assert PLAIN.job_cycles(1536, 576) == 9 + 1 + 576 * 7 + 13 + 1536 - 1
    # The results of a block take longer than its few inputs.
    assert PLAIN.job_cycles(1793, 2) == 1 + 1 + 14 + (1792 + 13 + 2) + 13


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"activation": "int8"}, "activation must be fp16 with fp16 weights, not int8"),
        ({"packing": "base3"}, "packing must be left at 2bit with fp16 weights, not base3"),
        ({"group_size": 64}, "group_size must be left at 128 with fp16 weights, not 64"),
        ({"aligned": 16}, "aligned must be left at None with fp16 weights, not 16"),
        ({"products": 1}, "products must be left at 2 with fp16 weights, not 1"),
    ],
)
def test_what_only_trits_have_is_refused_with_binary16_weights(fields, sentence):
    with pytest.raises(TernError, match=sentence):
        ArrayConfig(**{"activation": "fp16", "weights": "fp16"} | fields)


def test_binary16_weights_may_have_adders_of_carry_cells():
    config = ArrayConfig(activation="fp16", weights="fp16", dot="carry")
    assert config.name == "mac_64x4_fp16_carry"
    assert config.latency_cycles == PLAIN.latency_cycles
    assert config.job_cycles(70, 9) == PLAIN.job_cycles(70, 9)


def test_binary16_weights_need_no_lanes_that_fit_a_group():
    assert ArrayConfig(lanes=10, activation="fp16", weights="fp16").chunks(25) == 3
