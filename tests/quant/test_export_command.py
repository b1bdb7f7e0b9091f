"""`python -m quant.export`: its report, and what it refuses before or after it loads a model."""

import json
import subprocess
import sys

import pytest

from quant import export
from quant.exports.convert import export_model
from quant.models.linears import block_linears
from tern_hw.artifact import load_artifact
from tern_hw.errors import TernError
from tests.quant.exports import LAYER, command
from tests.quant.models import random_llama


def test_command_exports_a_folder_and_reports_json(llama, llama_folder, tmp_path, capsys):
    output = tmp_path / "a"
    arguments = ("--output", output, "--group-size", "16", "--packing", "2bit", "--json")
    assert command(llama_folder, *arguments) == 0
    report = json.loads(capsys.readouterr().out)
    artifact = load_artifact(output)
    assert report["model"] == "local folder llama"
    assert report["ternary"]["layers"] == len(artifact.layers) == 14
    weights = sum(linear.weight.numel() for linear in block_linears(llama).values())
    assert report["ternary"]["weights"] == weights
    assert report["artifact_bytes"] == sum(path.stat().st_size for path in output.iterdir())
    assert {layer["name"] for layer in report["layers"]} == set(artifact.layers)
    assert artifact.layer(LAYER).group_size == 16
    assert artifact.layer(LAYER).packing == "2bit"


def test_command_exports_a_gguf_by_row(llama_gguf, tmp_path, capsys):
    arguments = ("--output", tmp_path / "a", "--group-size", "row", "--layers", LAYER)
    assert command(llama_gguf, *arguments) == 0
    artifact = load_artifact(tmp_path / "a")
    assert artifact.layers == (LAYER,)
    assert artifact.layer(LAYER).group_size == "row"
    assert artifact.layer(LAYER).packing == "base3"
    assert "GGUF file llama.gguf, dequantised" in capsys.readouterr().out


def test_table_has_a_row_for_each_kind_and_states_the_tied_head(tmp_path, capsys):
    random_llama(tie_word_embeddings=True).save_pretrained(tmp_path / "model")
    assert command(tmp_path / "model", "--output", tmp_path / "a") == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if "mlp.down_proj" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    # 72 inputs: 15 bytes of base-3 digits, and one scale and shift.
    assert cells[:4] == ["mlp.down_proj", "2", "40 x 72", f"{(15 * 8 + 32) / 72:.3f}"]
    assert "lm_head.weight is tied to model.embed_tokens.weight" in " ".join(out.split())


def test_overwrite_replaces_an_artifact(llama_folder, tmp_path, capsys):
    output = tmp_path / "a"
    assert command(llama_folder, "--output", output, "--group-size", "16") == 0
    assert command(llama_folder, "--output", output) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert load_artifact(output).layer(LAYER).group_size == 16
    assert command(llama_folder, "--output", output, "--overwrite") == 0
    assert load_artifact(output).layer(LAYER).group_size == 128


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--group-size", "0"], '--group-size must be "row" or a positive integer, not 0'),
        (["--group-size", "-1"], '--group-size must be "row" or a positive integer, not -1'),
        (["--group-size", "6_4"], "--group-size must be \"row\" or an integer, not '6_4'"),
        (["--packing", "4bit"], "--packing must be one of"),
        (["--format", "onnx"], "--format must be one of"),
        (["--method", "magic"], "method must be one of dlt, "),
        (["--set", "colour=red"], "option of method als must be one of group_size, "),
        (["--set", "group_size=8", "--group-size", "8"], "option group_size must be given once"),
        (["--dtype", "fp16"], "--dtype must be given with --format merged or gguf, not artifact"),
        (
            ["--format", "merged", "--packing", "2bit"],
            "--packing must be given with --format artifact, not merged",
        ),
        (
            ["--format", "merged", "--gguf-type", "tq1_0"],
            "--gguf-type must be given with --format gguf, not merged",
        ),
        (["--format", "gguf"], "output must be a file that ends in .gguf"),
        (
            ["--layers", "*.nothing"],
            "layers must match the name of a linear layer, not '*.nothing'",
        ),
        (["--layers", "lm_head"], "layers must match the name of a linear layer, not 'lm_head'"),
    ],
)
def test_command_refuses_in_one_line(llama_folder, tmp_path, capsys, arguments, message):
    output = tmp_path / "a"
    assert command(llama_folder, "--output", output, *arguments) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert not output.exists()


@pytest.mark.parametrize("model", ["./nowhere", "owner/nothing"])
def test_command_refuses_a_model_that_is_not_there(tmp_path, capsys, model):
    assert command(model, "--output", tmp_path / "a") == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_overwrite_spares_a_models_folder(llama, llama_folder, tmp_path, capsys):
    other = tmp_path / "other"
    llama.save_pretrained(other)
    for extra in other.glob("generation*"):
        extra.unlink()
    before = (other / "model.safetensors").read_bytes()
    assert command(llama_folder, "--output", other, "--overwrite") == 2
    assert "output must be a new path or an artifact to replace" in capsys.readouterr().err
    assert (other / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("place", ["a", "a/inside", "link"])
def test_output_in_the_models_own_folder_is_refused(llama, tmp_path, capsys, place):
    # The marker alone would let it be replaced.
    assert command_exports(llama, tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert command(tmp_path / "a", "--output", tmp_path / place, "--overwrite") == 2
    assert "--output must lie apart from the model at" in capsys.readouterr().err
    assert load_artifact(tmp_path / "a").layers


def command_exports(model, output):
    export_model(model, output, origin="random")
    return output.is_dir()


def test_output_that_holds_the_gguf_is_refused(llama_gguf, tmp_path):
    with pytest.raises(TernError, match="--output must lie apart from the model"):
        export._check_apart(tmp_path, llama_gguf)
    export._check_apart(tmp_path / "beside", llama_gguf)


def test_empty_output_is_refused_by_its_option(capsys):
    assert command("tiny", "--output", "") == 2
    assert capsys.readouterr().err == "error: --output must be a path, not ''\n"


@pytest.mark.parametrize("name", ["file", "nowhere/a", "folder", "loop"])
def test_command_refuses_a_bad_output_before_it_loads_anything(tmp_path, capsys, monkeypatch, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setattr("quant.models.sources.find_source", None)
    assert command("smollm2", "--output", tmp_path / name, "--overwrite") == 2
    assert "error: output must" in capsys.readouterr().err


def test_module_runs_and_its_help_loads_no_torch():
    code = (
        "import sys, contextlib; from quant.export import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--group-size" in done.stdout
    bad = [sys.executable, "-m", "quant.export", "x", "--output", "y", "--group-size", "z"]
    refused = subprocess.run(bad, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "error: --group-size must be \"row\" or an integer, not 'z'\n"
