"""`python -m quant.train`: what its options change, and what a mistake gets."""

import json
from pathlib import Path
from typing import Any

import pytest

from quant import train
from quant.models.prepared import load_prepared
from tern_hw.cli import run


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line; returns status, stdout and stderr."""
    try:
        status = run(lambda: train.main(list(arguments)))
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(32 + (i * i + 7 * i) % 90 for i in range(3000)))
    return str(path)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    status, out, _ = outcome(capsys, "tiny", "--show-recipe", *arguments)
    assert status == 0
    return json.loads(out)


def test_options_change_the_recipe(capsys: pytest.CaptureFixture[str]):
    recipe = shown(
        capsys, "--recipe", "tiny", "--set", "ste=identity", "--loss", "kl=0.5", "label=1",
        "--learning-rate", "0.5", "--precision", "bf16",
    )  # fmt: skip
    assert recipe["options"]["ste"] == "identity"
    assert recipe["options"]["group_size"] == 64  # the recipe's own stays
    assert (recipe["losses"]["kl"], recipe["losses"]["label"]) == (0.5, 1.0)
    assert (recipe["learning_rate"], recipe["precision"]) == (0.5, "bf16")


def test_another_method_does_not_take_over_the_recipes_options(capsys: pytest.CaptureFixture[str]):
    assert shown(capsys, "--recipe", "tiny", "--method", "fdb")["options"]["group_size"] == 128


def test_another_method_does_not_take_over_the_recipes_start(capsys: pytest.CaptureFixture[str]):
    for options, start in (
        ([], "aware"),
        (["--method", "fdb"], ""),
        (["--start-from", "als"], "als"),
    ):
        assert shown(capsys, "--recipe", "smollm2-cpu", *options)["start_from"] == start


def test_fewer_steps_shorten_the_warm_up(capsys: pytest.CaptureFixture[str]):
    assert shown(capsys, "--steps", "50")["warmup_steps"] == 5
    assert shown(capsys, "--steps", "50", "--warmup-steps", "20")["warmup_steps"] == 20


def test_a_run_leaves_a_prepared_model_a_log_and_a_picture(
    capsys: pytest.CaptureFixture[str], llama_folder: Path, text: str, tmp_path: Path
):
    output = tmp_path / "run"
    arguments = [str(llama_folder), "--output", str(output), "--text", text, "--split", "all"]
    arguments += ["--recipe", "tiny", "--set", "group_size=16", "--window", "16", "--steps", "3"]
    status, out, _ = outcome(capsys, *arguments, "--json")
    assert status == 0
    summary = json.loads(out)
    assert (summary["steps"], summary["tokens"]) == (3, 3 * 4 * 16)
    assert {path.name for path in output.iterdir()} == {
        "checkpoint",
        "log.csv",
        "loss.png",
        "model",
    }
    prepared = load_prepared(output / "model")
    assert prepared.training["recipe"]["seed"] == 0
    status, out, _ = outcome(capsys, *arguments)  # again: all is done, nothing is lost
    assert status == 0
    assert "was done before" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--recipe", "none"], "recipe must be a TOML file or one of default,"),
        (["--method", "gptq"], "method must be one that trains, not gptq"),
        (["--set", "ste=none"], "ste must be one of ttq, identity, clipped, not 'none'"),
        (["--loss", "kl"], "loss must be written name=value, not 'kl'"),
        (["--loss", "colour=1"], "recipe must have fields among label,"),
        (["--steps", "0"], "steps must be positive, not 0"),
        (["--batch", "two"], "--batch must be an integer, not 'two'"),
        (["--output", ""], "--output must be a folder, not ''"),
        (["--split", "none"], "split must be one of train,"),
        (["--window", "5000"], "training text must have at least 10000 tokens"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    llama_folder: Path,
    text: str,
    tmp_path: Path,
):
    base = ["--output", str(tmp_path / "run"), "--recipe", "tiny", "--text", text, "--split", "all"]
    status, _, err = outcome(capsys, str(llama_folder), *base, *arguments)
    assert status == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert sentence in last
    assert not (tmp_path / "run" / "log.csv").exists()


def test_a_run_does_not_go_into_the_models_folder(
    capsys: pytest.CaptureFixture[str], llama_folder: Path, text: str
):
    output = str(llama_folder / "run")
    status, _, err = outcome(capsys, str(llama_folder), "--output", output, "--text", text)
    assert status == 2
    assert "--output must lie apart from the model" in err
    assert not Path(output).exists()
