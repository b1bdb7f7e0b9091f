"""`python -m tern_hw.estimate`: what it reports, what it draws, what it refuses, what it loads."""

import json
import re
import subprocess
import sys

import pytest

from tern_hw import estimate
from tern_hw.artifact import load_artifact, save_artifact
from tern_hw.cli import run
from tern_hw.estimation.artifacts import read_artifact
from tests.artifacts import layer

CONFIG = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 2048,
}


@pytest.fixture
def small(tmp_path):
    """Return the path of a small model's config.json."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


def facts(capsys, *arguments):
    assert estimate.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_adds_up(small, capsys):
    found = facts(capsys, "--model", small, "--context", "64", "--packing", "base3")
    decode = found["decode"]
    total = sum(each["joules_per_token"]["total"] for each in decode["kinds"])
    assert decode["joules_per_token"]["mid"] == pytest.approx(total)
    assert sum(decode["stack_joules_per_token"].values()) == pytest.approx(total)
    cycles = sum(each["cycles"] + each["stall_cycles"] for each in decode["kinds"])
    assert decode["tokens_per_second"] == pytest.approx(500e6 / cycles)
    ends = decode["joules_per_token"]
    assert ends["low"] < ends["mid"] < ends["high"]
    assert found["bits_per_weight"] == 1.875
    assert found["ratios"]["quoted"] == pytest.approx(71.43, abs=0.01)
    assert found["ratios"]["memory"] == pytest.approx(16 / 1.875)
    fp16 = found["opponents"]["decode"][0]
    assert fp16["energy_ratio"] == pytest.approx(found["ratios"]["token"])
    kept, streamed = found["prefill_keeping_weights"], found["opponents"]["prefill"][0]
    # 64 tokens share a fetch of all but their cache, their rows of the embedding and the head.
    assert kept["bytes_per_token"] < streamed["bytes_per_token"] / 10
    assert kept["joules_per_token"] < streamed["joules_per_token"]
    assert found["array"]["config"]["packing"] == "base3"
    assert all(each["source"] for each in found["sources"].values())


def test_table_tells_kinds_formats_ratios_and_swings(small, capsys):
    assert estimate.main(["--model", small, "--context", "64"]) == 0
    text = capsys.readouterr().out
    for word in ("attention linears *", "lm_head", "norms and glue", "tokens/s", "INT4 x INT8"):
        assert word in text
    assert "71.43x  the figure often quoted" in text
    assert "7.11x  bits from the memory: 16 over 2.25" in text
    assert "memory.energy" in text
    assert "FP16, sums in fp32" in text
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100


@pytest.mark.parametrize("name", ["llama-2-7b", "opt-350m", "bitnet-2b4t"])
@pytest.mark.parametrize("memory", ["sram", "ddr4"])
def test_large_figures_stay_within_the_table(name, memory, capsys):
    assert estimate.main(["--model", name, "--memory", memory, "--technology", "45nm"]) == 0
    text = capsys.readouterr().out
    assert "…" not in text
    assert "BF16, sums in fp32: not in 45nm" in text
    assert ("no limit" in text) == (memory == "sram")


def test_list_and_sources_name_where_figures_are_from(capsys):
    assert estimate.main(["--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 10
    assert all("arXiv" in line for line in listed)
    assert estimate.main(["--model", "opt-125m", "--sources"]) == 0
    sources = capsys.readouterr().out
    assert re.search(r"energy.fp16_mul = 0.34 pJ \(0.238 to 0.476\)\n    Jouppi et al.", sources)


def test_options_reach_the_inputs(small, capsys):
    given = ("--bandwidth", "3.5", "--zeros", "0", "--memory", "hbm2", "--clock", "250")
    found = facts(capsys, "--model", small, *given, "--lanes", "32", "--float-macs", "128")
    assert found["sources"]["memory.bandwidth"]["value"] == 3.5
    assert found["sources"]["data.zero_fraction"]["value"] == 0
    assert found["sources"]["memory.energy"]["value"] == 3.9
    assert found["clock_mhz"] == 250
    assert found["array"]["config"]["lanes"] == 32
    assert found["array"]["companion_fp16_macs_per_cycle"] == 128


def test_picture_is_a_png(small, tmp_path, capsys):
    path = tmp_path / "cost.png"
    assert estimate.main(["--model", small, "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "tokens/s" in capsys.readouterr().out


def saved_artifact(path, packing="base3", group_size=64, drop=()):
    """Save an artifact of the small model; returns its layers."""
    shapes = {
        **{f"self_attn.{name}_proj": (128, 128) for name in "qkvo"},
        "mlp.gate_proj": (256, 128),
        "mlp.up_proj": (256, 128),
        "mlp.down_proj": (128, 256),
    }
    layers = {
        f"model.layers.0.{name}": layer(packing, group_size, n=n, k=k, seed=seed)
        for seed, (name, (n, k)) in enumerate(shapes.items())
        if name not in drop
    }
    save_artifact(path, layers=layers, tensors={}, model_config=CONFIG, metadata={})
    return layers


@pytest.mark.parametrize("packing", ["2bit", "base3"])
def test_zeros_of_an_artifact_are_counted(tmp_path, packing):
    layers = saved_artifact(tmp_path / "model", packing)
    digits = [each.digits() for each in layers.values()]
    zeros = sum(int((each == 1).sum()) for each in digits)
    found = read_artifact(str(tmp_path / "model"), zeros=True)
    assert found.zero_fraction == zeros / sum(each.size for each in digits)
    assert (found.group_size, found.packing) == (64, packing)
    assert read_artifact(str(tmp_path / "model"), zeros=False).zero_fraction is None


def test_an_artifact_brings_its_own_array_and_zeros(tmp_path, capsys):
    saved_artifact(tmp_path / "model", drop=("mlp.down_proj",))
    found = facts(capsys, "--model", str(tmp_path / "model"))
    assert found["array"]["config"]["group_size"] == 64
    assert found["array"]["config"]["packing"] == "base3"
    assert "counted in the artifact" in found["sources"]["data.zero_fraction"]["source"]
    kinds = {(each["kind"], each["ternary"]): each for each in found["decode"]["kinds"]}
    mlp = next(each for (kind, _), each in kinds.items() if kind == "mlp linears")
    # gate and up at 1.625 + 0.5 bits; down as fp16.
    assert mlp["bytes_per_token"] == 2 * 256 * 2 * (13 + 4) + 2 * 128 * 256


def test_an_artifact_s_groups_are_those_that_options_must_fit(tmp_path, capsys):
    """Not the default's 128, of which 128 lanes make a group a cycle, and 96 none."""
    saved_artifact(tmp_path / "row", group_size="row")
    for options in (["--lanes", "128", "--products", "1"], ["--lanes", "96"]):
        found = facts(capsys, "--model", str(tmp_path / "row"), *options)
        assert found["array"]["config"]["group_size"] == "row"
    saved_artifact(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--products", "1"]
    assert run(lambda: estimate.main(arguments)) == 2
    assert "(group_size = 64, lanes = 64), not 1" in capsys.readouterr().err


def test_an_artifact_s_group_size_and_layers_must_fit(tmp_path, capsys):
    saved_artifact(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--group-size", "128"]
    assert run(lambda: estimate.main(arguments)) == 2
    assert capsys.readouterr().err == "error: group_size must be the artifact's, 64, not 128\n"
    other = {"model.layers.0.mlp.up_proj": layer("2bit", 64, n=128, k=128)}
    path = tmp_path / "other"
    save_artifact(path, layers=other, tensors={}, model_config=CONFIG, metadata={})
    assert run(lambda: estimate.main(["--model", str(path)])) == 2
    assert "not model.layers.0.mlp.up_proj [128, 128]" in capsys.readouterr().err
    assert load_artifact(path).layers == ("model.layers.0.mlp.up_proj",)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--lanes", "1000000000"], "lanes must be an integer from 8 to 1024, not 1000000000"),
        (
            ["--activation", "fp16", "--weights", "fp16"],
            "weights must be ternary where actions are counted, not fp16",
        ),
        (["--clock", "0"], "clock must be from 0.001 to 10000 MHz, not 0.0"),
        (["--clock", "-1"], "clock must be from 0.001 to 10000 MHz, not -1.0"),
        (["--clock", "nan"], "clock must be from 0.001 to 10000 MHz, not nan"),
        (["--clock", "500MHz"], "--clock must be a number, not '500MHz'"),
        (["--context", "0"], "context must be an integer from 1 to 16777216, not 0"),
        (["--context", "5000"], "context must be at most 4096 tokens for llama-2-7b, not 5000"),
        (["--batch", "0"], "batch must be an integer from 1 to 65536, not 0"),
        (["--zeros", "1"], "--zeros must be from 0 to below 1, not 1.0"),
        (["--zeros", "nan"], "--zeros must be from 0 to below 1, not nan"),
        (["--bandwidth", "-3"], "--bandwidth must be from 0.001 to 100000 GB/s, not -3.0"),
        (["--bandwidth", "nan"], "--bandwidth must be from 0.001 to 100000 GB/s, not nan"),
        (
            ["--bandwidth", "3", "--memory", "sram"],
            "--bandwidth must stand without --memory sram, not beside it",
        ),
        (["--float-macs", "1"], "float_macs must be a multiple of 4 from 32 to 4096, not 1"),
        (["--config", "huge"], "--config must be one of tiny, base, base3, fine, half, not 'huge'"),
        (["--config", "tiny"], "k (inputs) must be an integer from 1 to 1024, not 4096"),
        (["--plot", "a.pdf"], "--plot must be a .png file, not 'a.pdf'"),
        (["--technology", "5nm"], "technology must be one of 45nm, 7nm or a .toml file, not '5nm'"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(arguments, sentence, capsys):
    try:
        status = run(lambda: estimate.main(["--model", "llama-2-7b", *arguments]))
    except SystemExit as exit_:  # argparse's own
        status = exit_.code
    output, errors = capsys.readouterr()
    assert (status, output) == (2, "")
    assert errors.startswith(f"error: {sentence}")
    assert errors.count("\n") == 1


def test_a_model_must_be_given(capsys):
    assert run(lambda: estimate.main([])) == 2
    assert capsys.readouterr().err == "error: --model must be given\n"


def test_an_estimate_loads_nothing_that_takes_long():
    """Neither the frameworks nor the compilers: what makes it answer at once."""
    heavy = ("torch", "transformers", "numba", "llvmlite", "amaranth", "matplotlib", "numpy")
    code = f"""
import sys
for name in {heavy!r}:
    sys.modules[name] = None  # importing it raises ImportError
from tern_hw.estimate import main
assert main(["--model", "llama-2-7b"]) == 0
print(len(sys.modules), file=sys.stderr)
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    assert "tokens/s" in child.stdout
    assert int(child.stderr) < 600


def test_help_ends_with_examples():
    child = subprocess.run(
        [sys.executable, "-m", "tern_hw.estimate", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.returncode == 0
    assert "python -m tern_hw.estimate --model llama-2-7b --packing base3" in child.stdout
