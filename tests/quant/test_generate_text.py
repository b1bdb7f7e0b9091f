"""`python -m quant.generate`: text and speed from an artifact, and what is refused."""

import json

import pytest

from quant import generate
from quant.exports.convert import export_model
from tern_hw.cli import run
from tests.quant.models import random_llama


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "artifact"
    export_model(random_llama(), folder, origin="random")
    return folder


def command(*arguments):
    """Run the command line in this process; returns its status as the shell would see it."""
    try:
        return run(lambda: generate.main(["--tokenizer", "tiny", *map(str, arguments)]))
    except SystemExit as stopped:
        return stopped.code


def test_text_goes_out_and_speed_is_told(artifact, capsys):
    assert command("--model", artifact, "--prompt", "To be", "--tokens", 8) == 0
    out, err = capsys.readouterr()
    assert out.startswith("To be")
    assert len(out) > len("To be")
    assert "5 tokens read at " in err
    assert "8 written at " in err
    assert "tokens/s" in err


def test_json_holds_text_and_figures(artifact, capsys):
    options = ("--model", artifact, "--prompt", "To be", "--tokens", 8, "--threads", 1, "--json")
    reports = []
    for more in ((), ("--packing", "base3"), ("--activation", "fp16")):
        assert command(*options, *more) == 0
        reports.append(json.loads(capsys.readouterr().out))
    for report in reports:
        assert (report["prompt_tokens"], report["tokens"]) == (5, 8)
        assert report["tokens_per_s"] > 0
        assert report["layer_bytes"] > 0
    # How the layers lie in memory changes no bit.
    assert reports[0]["text"] == reports[1]["text"]


def test_torch_takes_turns_where_it_is_asked_to(artifact, capsys):
    options = ("--model", artifact, "--prompt", "To be", "--tokens", 6, "--beside-torch")
    assert command(*options, "--json") == 0
    beside = json.loads(capsys.readouterr().out)["beside_torch"]
    names = ["kernels", "torch float32", "torch bfloat16"]
    assert list(beside["tokens_per_s"]) == names
    assert all(len(rounds) == 3 for rounds in beside["tokens_per_s"].values())
    assert list(beside["times"]) == names[1:]
    split = beside["ms_a_token"]
    assert list(split) == ["ternary layers", "head", "attention", "other modules", "generation"]
    assert all(value > 0 for value in split.values())
    assert command(*options) == 0
    err = capsys.readouterr().err
    assert " times)" in err
    assert "ms a token on the kernels, clocks included: ternary layers " in err


def test_draws_follow_the_seed(artifact, capsys):
    texts = []
    for seed in (1, 1, 2):
        options = ("--temperature", 5, "--seed", seed, "--tokens", 20, "--json")
        assert command("--model", artifact, "--prompt", "a", *options) == 0
        texts.append(json.loads(capsys.readouterr().out)["text"])
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", ""], "--prompt must be a text of one token or more, not empty"),
        (["--prompt", "a", "--tokens", 0], "--tokens must be a positive integer, not 0"),
        (["--prompt", "a", "--threads", -1], "--threads must be a positive integer, not -1"),
        (["--prompt", "a", "--temperature", -1], "--temperature must be from 0 to 100, not -1"),
        (["--prompt", "a", "--temperature", "nan"], "--temperature must be from 0 to 100"),
        (["--prompt", "a", "--seed", -1], "--seed must not be negative, not -1"),
        (["--prompt", "a", "--tokens", 64], "64"),
        (["--prompt", "a", "--activation", "fp8"], "--activation"),
    ],
)
def test_what_does_not_fit_is_refused(artifact, capsys, options, message):
    assert command("--model", artifact, *options) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_what_is_no_artifact_is_refused(tmp_path, capsys):
    assert command("--model", tmp_path, "--prompt", "a") == 2
    assert str(tmp_path) in capsys.readouterr().err
