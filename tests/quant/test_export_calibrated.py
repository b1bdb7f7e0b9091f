"""`python -m quant.export` by a method that looks at text."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from quant.methods.dlt import DltConfig
from quant.models.sources import find_source
from quant.ternary import TernaryFit
from quant.text.loading import load_tokens
from quant.training.recipe import Recipe
from quant.training.start import fit_start, open_start
from tern_hw.artifact import load_artifact
from tests.quant.exports import LAYER, command


def exported(path: Path, model: Path, text: Path, *options: object) -> Tensor:
    assert command(
        model, "--output", path, "--method", "aware", "--group-size", 16, "--set", "rounds=1",
        "--text", text, "--split", "all", "--window", 16, "--windows", 4, *options,
    ) == 0  # fmt: skip
    return TernaryFit.from_matrix(load_artifact(path).layer(LAYER)).dequantize()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(32 + (i * i + 7 * i) % 90 for i in range(3000)))
    return path


def test_an_export_by_a_calibrated_method_reads_the_text(
    llama_folder: Path, text: Path, tmp_path: Path
):
    first, again, other = (
        exported(tmp_path / name, llama_folder, text, "--seed", seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert load_artifact(tmp_path / "c").info.metadata["training"] == {
        "calibration": {"text": [str(text)], "split": "all", "windows": 4, "window": 16, "seed": 1}
    }


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--method", "als", "--text", "brown"], "--text must be left out for method als"),
        (["--method", "aware", "--windows", "0"], "--windows must be positive, not 0"),
        (["--method", "aware", "--window", "-1"], "--window must be positive, not -1"),
        (["--method", "aware", "--seed", "-1"], "--seed must be 0 or more, not -1"),
        (["--method", "aware", "--text", "absent"], "absent"),
    ],
)
def test_calibration_that_cannot_be_is_refused(
    llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options, error
):
    assert command(llama_folder, "--output", tmp_path / "a", *options) == 2
    assert error in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "a").exists()


def test_the_defaults_are_those_of_a_training_that_starts_from_the_method(
    llama_folder: Path, text: Path, tmp_path: Path
):
    options = ("--method", "gptq", "--text", text, "--split", "all", "--window", 16)
    assert command(llama_folder, "--output", tmp_path / "a", *options) == 0
    source = find_source(str(llama_folder))
    tokens = load_tokens(str(text), source.tokenizer)
    recipe = Recipe(options=DltConfig(codes="nearest"), start_from="gptq", window=16)
    start = fit_start(tmp_path / "start", source.model, recipe, tokens, origin="random")
    assert start.describe()["sha256"] == open_start(tmp_path / "a").describe()["sha256"]
