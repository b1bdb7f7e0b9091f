"""The verb: what is a regression, its exit status, and the whole command once."""

import json
import tomllib
from types import SimpleNamespace

import pytest

from tern_hw import validate
from tern_hw.costs.fpga import read_fit
from tern_hw.errors import TernError
from tern_hw.validation import area, checks, cycles, switching, switching_record
from tern_hw.validation.configurations import TRAINING

CASE = switching.QUICK[0]


def ratio(error):
    pj = {"ternary": 0.1, "fp16": 1.0}
    found = {"name": CASE.name, "predicted": 10 * (1 + error), "measured": 10.0, "error": error}
    found |= {"within": abs(error) <= switching.BAR, "bar": switching.BAR}
    return found | {"analytic_pj_per_mac": pj, "gates_pj_per_mac": pj}


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Let a ratio have an error beside a recorded one of +30 %, which misses the bar."""
    path = tmp_path / "switching.json"
    path.write_text(json.dumps({"errors": {CASE.name: 0.30}}))
    monkeypatch.setattr(switching_record, "RECORD", path)

    def let(error):
        monkeypatch.setattr(switching, "check_ratios", lambda cases: iter([ratio(error)]))

    return let


@pytest.mark.parametrize(("error", "status"), [(0.31, 0), (-0.31, 0), (0.33, 1), (-0.33, 1)])
def test_an_error_beyond_the_recorded_one_is_a_regression(measured, capsys, error, status):
    measured(error)
    assert validate.main(["--part", "switching"]) == status
    out = capsys.readouterr().out
    assert "bar missed" in out
    assert ("regression: 16 lanes" in out) == bool(status)


def test_json_holds_predicted_measured_and_error(measured, capsys):
    measured(0.10)
    assert validate.main(["--part", "switching", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    (found,) = facts["switching"]["ratios"]
    assert found["predicted"] == pytest.approx(11.0)
    assert found["error"] == 0.10
    assert found["recorded_error"] == 0.30
    assert facts["regressions"] == []


@pytest.mark.parametrize(("error", "status"), [(0.31, 0), (-0.31, 0), (0.33, 1), (-0.33, 1)])
def test_a_recorded_error_counts_by_its_size(measured, error, status):
    switching_record.RECORD.write_text(json.dumps({"errors": {CASE.name: -0.30}}))
    measured(error)
    assert validate.main(["--part", "switching"]) == status


def test_a_recorded_error_of_nothing_is_a_record(measured):
    switching_record.RECORD.write_text(json.dumps({"errors": {CASE.name: 0.0}}))
    measured(0.03)
    assert validate.main(["--part", "switching"]) == 1


def test_a_count_that_differs_is_a_regression(monkeypatch, capsys):
    counts = {"cycles": 100, "results": 4}
    done = {"config": cycles.QUICK[0], "n": 4, "k": 9, "streams": cycles.STREAMS[1]}
    right = cycles.CycleCheck(**done, predicted=counts, measured=dict(counts))
    wrong = cycles.CycleCheck(**done, predicted=counts, measured=counts | {"cycles": 101})
    monkeypatch.setattr(cycles, "check_cycles", lambda configs: iter([right]))
    assert validate.main(["--part", "cycles"]) == 0
    monkeypatch.setattr(cycles, "check_cycles", lambda configs: iter([right, wrong]))
    capsys.readouterr()
    assert validate.main(["--part", "cycles", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)["regressions"]
    assert len(told) == len(cycles.QUICK)
    assert told[0].endswith(
        "4 x 9, sources 30% idle: counters less model must be 0, not {'cycles': 1}"
    )


@pytest.mark.parametrize(("within", "regressions"), [(True, 0), (False, 1)])
def test_a_missed_bar_of_the_area_is_a_regression(monkeypatch, within, regressions):
    found = {"within": within, "median": 0.05, "worst": 0.3}
    monkeypatch.setattr(area, "read_record", lambda: {"arrays": []})
    monkeypatch.setattr(area, "judge", lambda model, record: dict(found))
    monkeypatch.setattr(checks, "fitted_area", lambda target: SimpleNamespace(source="a test"))
    facts = checks.validation_facts(["area"], full=False, notify=lambda text: None)
    assert len(facts["regressions"]) == regressions
    assert all("not 5.0% and 30.0%" in each for each in facts["regressions"])


def test_the_smallest_held_out_arrays_are_made_again_or_all():
    arrays = [
        {"role": role, "parts": {"rest": size}}
        for role, size in (("held out", 5), ("training", 1), ("held out", 9), ("held out", 3))
    ]
    sizes = {
        full: [each["parts"]["rest"] for each in checks._samples({"arrays": arrays}, full)]
        for full in (False, True)
    }
    assert sizes == {False: [3, 5], True: [3, 5, 9]}


def test_a_case_without_a_record_is_refused(measured):
    switching_record.RECORD.write_text(json.dumps({"errors": {}}))
    measured(0.0)
    with pytest.raises(TernError, match=r"switching.json must have '16 lanes.*run --refit"):
        validate.main(["--part", "switching"])


@pytest.mark.parametrize(("change", "regressions"), [(1.01, 0), (1.03, 1), (0.97, 1)])
def test_a_synthesis_that_left_the_record_is_a_regression(
    monkeypatch, tmp_path, change, regressions
):
    parts = {"scales": 400.0, "results": 700.0, "rest": 1100.0}
    monkeypatch.setattr(area, "measured_parts", lambda config, notify: dict(parts))
    arrays = TRAINING[:3]
    fit_path, record_path = tmp_path / "fit.toml", tmp_path / "area.json"
    area.refit(arrays[:1], arrays[1:], fit_path=fit_path, record_path=record_path)
    model = read_fit(tomllib.loads(fit_path.read_text()))
    monkeypatch.setattr(checks, "fitted_area", lambda target: model)
    record = area.read_record(record_path)
    monkeypatch.setattr(area, "read_record", lambda: record)
    monkeypatch.setattr(area, "MEDIAN_BAR", 10.0)
    monkeypatch.setattr(area, "WORST_BAR", 10.0)
    parts["rest"] = 2200 * change - 1100
    facts = checks.validation_facts(["area"], full=False, notify=lambda text: None)
    assert len(facts["area"]["again"]) == checks.SAMPLES
    assert len(facts["regressions"]) == regressions * checks.SAMPLES


def test_an_unknown_part_is_refused():
    with pytest.raises(TernError, match="--part must be one of cycles, area, switching, not 'gas'"):
        validate.main(["--part", "gas"])


def test_ratio_by_the_table_in_closed_form():
    found = switching._analytic(CASE.config, CASE.accumulator, 0.42)
    # fp16: 1.1 + 0.4 pJ and the result's register of 16 bits.
    assert found["fp16"] == pytest.approx(1.5 + 16 * 0.0039, rel=1e-3)
    assert 10 < found["fp16"] / found["ternary"] < 12
    # fp32: 1.1 + 0.9 pJ and 32 bits.
    wide = switching._analytic(switching.FULL[3].config, switching.FULL[3].accumulator, 0.42)
    assert wide["fp16"] == pytest.approx(2.0 + 32 * 0.0039, rel=1e-3)


@pytest.mark.slow
def test_the_command_finds_no_regression(capsys):
    assert validate.main([]) == 0
    out = capsys.readouterr().out
    assert "no regression(s)" in out
    assert "FP16 over ternary" in out
    assert "synthesised now, beside the record" in out
