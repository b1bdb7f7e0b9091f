"""The fitted area: coefficients come back, bars are judged, a damaged file is refused."""

import dataclasses
import json
import tomllib

import pytest

from tern_hw.config import ArrayConfig
from tern_hw.costs.fpga import FpgaArea, features, part_of, read_fit
from tern_hw.errors import TernError
from tern_hw.validation import area
from tern_hw.validation.configurations import HELD_OUT, TRAINING

TRUE = {
    "scales": {"sum_bits": 14.0, "accumulator_bits": 3.5},
    "results": {
        "array": 180.0,
        "sum_bits": 1.5,
        "normalised_bits": 1.1,
        "selected_bits": 0.7,
    },
    "rest": {
        "array": 700.0,
        "rows": 60.0,
        "lanes": 3.0,
        "adder_bits": 1.0,
        "trits_2bit": 2.5,
        "bytes_base3": 50.0,
        "lanes_fp16": 150.0,
    },
}
MODEL = FpgaArea("ecp5", "LUT4-eq", "a test", "none", TRUE)


def invented(config, factor=1.0):
    return {part: factor * value for part, value in MODEL.parts(config).items()}


def test_coefficients_come_back_from_areas_made_of_them():
    found = area.fit([(config, invented(config)) for config in TRAINING])
    for part, wanted in TRUE.items():
        assert found[part] == pytest.approx(wanted, rel=1e-3)


def test_the_sum_of_squared_shares_is_least():
    measured = [
        (config, invented(config, 1 + 0.05 * (-1) ** at)) for at, config in enumerate(TRAINING)
    ]
    model = FpgaArea("ecp5", "LUT4-eq", "a test", "none", area.fit(measured))

    def shares(changed, part):
        wrong = (
            (changed.parts(config)[part] - areas[part]) / sum(areas.values())
            for config, areas in measured
        )
        return sum(each**2 for each in wrong)

    for part, values in model.coefficients.items():
        for name, value in values.items():
            for factor in (0.99, 1.01) if value else ():
                moved = dict(values) | {name: factor * value}
                changed = dataclasses.replace(
                    model, coefficients=dict(model.coefficients) | {part: moved}
                )
                assert shares(changed, part) > shares(model, part), (part, name)


def test_no_coefficient_is_negative():
    measured = [(config, invented(config) | {"rest": 900 - config.lanes}) for config in TRAINING]
    assert min(area.fit(measured)["rest"].values()) >= 0


def test_held_out_arrays_are_enough_and_none_is_in_the_training_set():
    assert len(HELD_OUT) == len(set(HELD_OUT)) >= area.LEAST_HELD_OUT
    assert not set(HELD_OUT) & set(TRAINING)


def test_every_feature_varies_among_the_training_arrays():
    for part in TRUE:
        for name in features(TRAINING[0])[part]:
            assert name == "array" or len({features(each)[part][name] for each in TRAINING}) > 1


def test_bits_of_the_adders_in_closed_form():
    # Tree of 8 lanes of 8 bits: 4 x 9, 2 x 10, 11, the group's sum; a carry-in each; 64 masked.
    group = ArrayConfig(lanes=8, rows=1).sum_bits
    tree = 4 * (9 + 1) + 2 * (10 + 1) + 11 + 1 + group + 1 + 8 * 8
    assert features(ArrayConfig(lanes=8, rows=1))["rest"]["adder_bits"] == tree
    # A chain of 8: 9, 2 x 10, 4 x 11; its first lane is masked.
    chain = 9 + 2 * 10 + 4 * 11 + 7 + group + 1 + 8
    assert features(ArrayConfig(lanes=8, rows=1, dot="carry"))["rest"]["adder_bits"] == chain


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ("core.scale_0", "scales"),
        ("core.scale_ring", "rest"),
        ("core.results.rounder", "results"),
        ("core.dot_1.tree", "rest"),
        ("top", "rest"),
    ],
)
def test_blocks_belong_to_parts(block, part):
    assert part_of(block) == part


def test_refit_measures_the_training_set_first_and_writes_what_can_be_read(tmp_path, monkeypatch):
    seen = []
    fit_path, record_path = tmp_path / "fit.toml", tmp_path / "area.json"

    def measured(config, notify):
        seen.append((config, fit_path.exists()))
        return invented(config)

    monkeypatch.setattr(area, "measured_parts", measured)
    area.refit(TRAINING, HELD_OUT[:3], fit_path=fit_path, record_path=record_path)
    assert seen == [(each, False) for each in TRAINING] + [(each, True) for each in HELD_OUT[:3]]
    model = read_fit(tomllib.loads(fit_path.read_text()))
    assert model.coefficients["scales"] == pytest.approx(TRUE["scales"], rel=1e-3)
    found = area.judge(model, area.read_record(record_path))
    assert found["held_out"] == 3
    assert found["within"]
    assert not found["enough"]
    assert found["worst"] < 1e-3


def record_of(factors):
    return {
        "arrays": [
            {
                "name": config.name,
                "role": "held out",
                "parts": invented(config, factor),
                "configuration": config.as_dict(),
            }
            for config, factor in zip(HELD_OUT, factors, strict=False)
        ]
    }


@pytest.mark.parametrize(
    ("factors", "within"),
    [
        ([1.05] * 20, True),
        ([1.15] * 20, False),
        ([1.0] * 19 + [1.2], True),
        ([1.0] * 19 + [0.8], False),
    ],
)
def test_median_and_worst_are_judged(factors, within):
    found = area.judge(MODEL, record_of(factors))
    assert found["enough"]
    assert found["within"] is within


def test_an_error_is_what_the_prediction_lies_above_the_measurement():
    found = area.judge(MODEL, record_of([1.25] * 20))
    assert found["median"] == pytest.approx(0.2)
    assert found["arrays"][0]["error"] == pytest.approx(-0.2, rel=1e-3)


def test_training_arrays_are_not_judged():
    record = record_of([1.0] * 20 + [2.0])
    record["arrays"][20]["role"] = "training"
    assert area.judge(MODEL, record)["within"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group_size": "row"}, "group_size must be an integer"),
        ({"activation": "fp16", "aligned": 12}, "aligned must be left out"),
        ({"activation": "fp16", "weights": "fp16"}, "weights must be ternary"),
    ],
)
def test_arrays_of_another_kind_are_refused(fields, message):
    with pytest.raises(TernError, match=message):
        MODEL.area(ArrayConfig(**fields))


def test_a_fit_without_source_or_coefficient_is_refused():
    head = {"target": "ecp5", "unit": "LUT4-eq", "source": "a test", "tools": "none"}
    with pytest.raises(TernError, match=r"fit\.source must be given, not ''"):
        read_fit({"fit": head | {"source": ""}, "coefficients": TRUE})
    lacking = TRUE | {"scales": {"sum_bits": 1.0}}
    with pytest.raises(TernError, match=r"coefficients\.scales must have accumulator_bits"):
        read_fit({"fit": head, "coefficients": lacking})


def test_a_damaged_record_is_refused(tmp_path):
    path = tmp_path / "area.json"
    with pytest.raises(TernError, match=r"area.json must be written by .* --refit first"):
        area.read_record(path)
    path.write_text("{}")
    with pytest.raises(TernError, match=r"area.json must be a record of --refit"):
        area.read_record(path)
    path.write_text(json.dumps({"arrays": [{"role": "guessed"}]}))
    with pytest.raises(TernError, match="training and held out arrays, not"):
        area.read_record(path)
