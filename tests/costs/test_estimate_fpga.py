"""`estimate --fpga`: the fitted area beside the table's, its share of a device, what is refused."""

import importlib.resources
import json

import pytest

from tern_hw import estimate, explore
from tern_hw.cli import run
from tern_hw.config import ArrayConfig
from tern_hw.costs import fpga as fit_module
from tern_hw.costs.fpga import FpgaArea, features
from tern_hw.estimation import fpga as fpga_module
from tern_hw.estimation.fpga import fpga_facts

MODEL = ["--model", "opt-125m", "--context", "64"]


def fit(factor=1.0):
    """Return a made-up fit: each feature costs the same."""
    parts = features(ArrayConfig())
    costs = {part: dict.fromkeys(found, factor) for part, found in parts.items()}
    return FpgaArea("ecp5", "LUT4-eq", "a test", "none", costs)


@pytest.fixture
def fitted(monkeypatch):
    """Have the made-up fit in place of the toolkit's."""
    monkeypatch.setattr(fpga_module, "fitted_area", lambda target: fit())


def test_area_is_the_fit_s_and_the_share_is_of_the_device(fitted, capsys):
    assert estimate.main([*MODEL, "--lanes", "32", "--fpga", "ecp5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["array"]
    array = ArrayConfig.from_dict(found["config"])
    assert array.lanes == 32
    fpga = found["fpga"]
    assert fpga["area"] == pytest.approx(fit().area(array))
    assert sum(fpga["parts"].values()) == pytest.approx(fpga["area"])
    assert fpga["share"] == pytest.approx(fpga["area"] / 83640)
    assert (fpga["unit"], fpga["device"], fpga["source"]) == ("LUT4-eq", "LFE5U-85F", "a test")
    # The other area stays.
    assert found["engine_mm2"] > 0


def test_the_report_says_area_share_and_what_is_not_known(fitted, capsys):
    assert estimate.main([*MODEL, "--fpga", "ecp5"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    area = fit().area(ArrayConfig())
    assert f"ecp5: {area:,.0f} LUT4-eq of array by a fit to synthesis, {area / 83640:.1%}" in text
    assert "of an LFE5U-85F (83,640 LUTs)" in text
    assert "DSP blocks, block RAM and energy there are not estimated" in text


def test_without_it_nothing_is_said(fitted, capsys):
    assert estimate.main([*MODEL, "--json"]) == 0
    assert "fpga" not in json.loads(capsys.readouterr().out)["array"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--fpga", "virtex"], "--fpga must be one of ecp5, not 'virtex'"),
        (["--fpga", "../ecp5"], "--fpga must be one of ecp5, not '../ecp5'"),
        (
            ["--fpga", "ecp5", "--group-size", "row"],
            'group_size must be an integer for the fitted area, not "row"',
        ),
        (
            ["--fpga", "ecp5", "--products", "1"],
            "products must be 2 for the fitted area, not 1",
        ),
    ],
)
def test_a_mistake_is_one_sentence(fitted, options, sentence, capsys):
    assert run(lambda: estimate.main([*MODEL, *options])) == 2
    assert capsys.readouterr() == ("", f"error: {sentence}\n")


def test_a_fit_that_is_missing_is_told(monkeypatch, tmp_path, capsys):
    files = importlib.resources.files
    monkeypatch.setattr(
        fit_module.importlib.resources,
        "files",
        lambda package: tmp_path if package == "tern_hw.costs" else files(package),
    )
    fit_module.fitted_area.cache_clear()
    try:
        assert run(lambda: estimate.main([*MODEL, "--fpga", "ecp5"])) == 2
    finally:
        fit_module.fitted_area.cache_clear()
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors == (
        "error: target must be one whose area was fitted (validate --refit), not 'ecp5'\n"
    )


def test_it_is_no_axis_of_a_sweep(capsys):
    with pytest.raises(SystemExit):
        explore.main([*MODEL, "--fpga", "ecp5"])
    assert "must be among those that --help lists" in capsys.readouterr().err


def test_facts_are_those_of_the_array(fitted):
    small, large = (fpga_facts("ecp5", ArrayConfig(lanes=lanes)) for lanes in (32, 64))
    assert small["area"] < large["area"]
