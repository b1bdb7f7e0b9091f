"""`python -m tern_hw.simulate`: its report, its exit status, and what a mistake gets."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim.stimuli import random_layer
from tern_hw import simulate
from tern_hw.artifact import load_artifact, save_artifact
from tern_hw.cli import run as run_cli
from tern_hw.config import ArrayConfig
from tern_hw.errors import TernError
from tern_hw.flows import harness
from tern_hw.reference import matmul
from tests.simulations import SMALL_ARRAY

ROOT = Path(__file__).parent.parent
LAYER = "model.layers.0.mlp.up_proj"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """An artifact with a layer of groups of 32 and one of whole rows."""
    folder = tmp_path_factory.mktemp("simulate") / "model"
    rng = np.random.default_rng(11)
    grouped = random_layer(rng, 21, 100, ArrayConfig(lanes=32, group_size=32))
    whole = random_layer(rng, 5, 30, ArrayConfig(lanes=8, group_size="row"))
    layers = {
        LAYER: grouped.matrix(ArrayConfig(lanes=32, group_size=32)),
        "model.layers.0.mlp.down_proj": whole.matrix(ArrayConfig(group_size="row")),
    }
    save_artifact(folder, layers=layers, tensors={}, model_config={}, metadata={})
    return folder


def test_command_reports_and_succeeds(artifact, capsys):
    assert simulate.main([str(artifact), LAYER, "--tokens", "2", *SMALL_ARRAY]) == 0
    table = capsys.readouterr().out
    assert f"{LAYER}: 21 outputs x 100 inputs" in table
    assert "mismatches: 0" in table
    assert "WRONG" not in table


def test_command_saves_the_results(artifact, tmp_path, capsys):
    x = np.arange(-50, 50, dtype=np.int8)
    np.save(tmp_path / "x.npy", x)
    files = ["--activations", str(tmp_path / "x.npy"), "--save", str(tmp_path / "y.npy")]
    assert simulate.main([str(artifact), LAYER, *files, *SMALL_ARRAY]) == 0
    expected = matmul(x[None], load_artifact(artifact).layer(LAYER))
    assert np.load(tmp_path / "y.npy").tobytes() == expected.tobytes()


def test_damage_in_another_layer_is_refused(artifact, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(artifact, folder)
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    for layer in (LAYER, "model.layers.0.mlp.down_proj"):
        with pytest.raises(TernError, match="checksum differs"):
            simulate.main([str(folder), layer, *SMALL_ARRAY])


def test_command_writes_json(artifact, tmp_path, capsys):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(-50, 50, dtype=np.int8))
    options = ["--activations", str(path), "--idle", "0.2", "--backpressure", "0.2", "--json"]
    assert simulate.main([str(artifact), LAYER, *options, *SMALL_ARRAY]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["outputs"], facts["inputs"], facts["tokens"]) == (21, 100, 1)
    assert (facts["results"], facts["mismatches"], facts["complaints"]) == (21, 0, [])
    assert facts["cycles"][0] > facts["expected_cycles"]
    assert facts["stalls"]["weight"] > 0


def test_command_takes_products_in_turn(artifact, capsys):
    cycles = []
    for products in ("2", "1"):
        options = [*SMALL_ARRAY, "--products", products, "--json"]
        assert simulate.main([str(artifact), LAYER, *options]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["mismatches"] == 0
        cycles.append(facts["cycles"][0])
    # 100 inputs end with a single step of 8; 21 outputs are 11 row blocks.
    assert cycles[1] - cycles[0] == 11


def test_command_takes_the_activations_format_from_the_file(artifact, tmp_path, capsys):
    path = tmp_path / "x.npy"
    np.save(path, np.linspace(-1, 1, 200).astype(np.float16).reshape(2, 100))
    options = ["--activations", str(path), "--tokens", "1", "--json"]
    assert simulate.main([str(artifact), LAYER, *options, *SMALL_ARRAY]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["array"].startswith("tern_8x2_fp16_g32")
    assert facts["tokens"] == 1


@pytest.mark.usefixtures("fresh_builds")
def test_wrong_array_is_status_1(artifact, monkeypatch, capsys):
    monkeypatch.setattr(ArrayConfig, "job_cycles", lambda config, n, k: 3)
    assert simulate.main([str(artifact), LAYER, *SMALL_ARRAY]) == 1
    assert "WRONG    job 0 must take exactly 3 cycles, not" in capsys.readouterr().out


@pytest.mark.usefixtures("fresh_builds")
def test_hang_is_status_1_and_one_sentence(artifact, monkeypatch, capsys):
    monkeypatch.setattr(harness, "LIMIT_CYCLES", 0)
    monkeypatch.setattr(harness, "LIMIT_FACTOR", 0.3)
    assert simulate.main([str(artifact), LAYER, *SMALL_ARRAY]) == 1
    assert "error: job 0 must end within" in capsys.readouterr().err


def save_pickle(path: Path) -> None:
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


def save_truncated(path: Path) -> None:
    np.save(path, np.zeros((4, 100), np.int8))
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: None, r"--activations must be an existing file, not .*x.npy"),
        (save_pickle, r"--activations must be a .npy file of numbers"),
        (save_truncated, r"--activations must be a .npy file of numbers"),
        (lambda path: path.write_bytes(b""), r"--activations must be a .npy file of numbers"),
        (lambda path: path.write_bytes(b"PK\x03\x04cut"), r"a .npy file of numbers, not .*zip"),
        (lambda path: path.mkdir(), r"--activations must be a .npy file of numbers"),
        (lambda path: np.savez(path.open("wb"), x=np.zeros(3)), r"a .npy file of one array"),
        (
            lambda path: np.save(path, np.int8(3)),
            r"of shape \[M, 100\], not int8 \[1, 1\]",
        ),
        (lambda path: np.save(path, np.zeros((2, 99), np.int8)), r"not int8 \[2, 99\]"),
        (lambda path: np.save(path, np.zeros((2, 100))), r"int8 .*, not float64 \[2, 100\]"),
        (lambda path: np.save(path, np.full(100, np.nan, np.float16)), r"must be finite"),
    ],
)
def test_bad_activations_file_is_one_sentence(write, sentence, artifact, tmp_path):
    path = tmp_path / "x.npy"
    write(path)
    with pytest.raises(TernError, match=sentence):
        simulate.main([str(artifact), LAYER, "--activations", str(path), *SMALL_ARRAY])


@pytest.mark.parametrize(
    ("layer", "options", "sentence"),
    [
        ("mlp.up_proj", [], rf"layer must be one of .*\(such as {LAYER}.*\), not 'mlp.up_proj'"),
        (LAYER, ["--lanes", "63"], r"group_size must be .*\(lanes = 63\), not 32"),
        (LAYER, ["--lanes", "0"], r"lanes must be an integer from 8 to 1024, not 0"),
        (LAYER, ["--config", "base"], r"group_size must be the array's 128, not 32"),
        (LAYER, ["--config", "nothing"], r"--config must be one of tiny, .*, not 'nothing'"),
        (LAYER, ["--max-k", "64"], r"in_features must be from 1 to the array's 64, not 100"),
        (LAYER, ["--packing", "base4"], r"packing must be one of 2bit, base3, not 'base4'"),
        (LAYER, ["--tokens", "0"], r"--tokens must be from 1 to \d+, not 0"),
        (LAYER, ["--random", "-1"], r"--random must be at least 0, not -1"),
        (LAYER, ["--idle", "1"], r"idle must be a probability"),
    ],
)
def test_bad_option_is_one_sentence(layer, options, sentence, artifact):
    with pytest.raises(TernError, match=sentence):
        simulate.main([str(artifact), layer, *options])


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_bad_artifact_is_status_2(damage, artifact, tmp_path, capsys):
    folder = tmp_path / "model"
    if damage == "truncated":
        folder.mkdir()
        for path in artifact.iterdir():
            (folder / path.name).write_bytes(path.read_bytes()[:-20])
    assert run_cli(lambda: simulate.main([str(folder), LAYER])) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_module_runs_from_the_shell(artifact, tmp_path):
    command = [sys.executable, "-m", "tern_hw.simulate", str(artifact), "no_layer"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: layer must be one of ")
    assert "Traceback" not in done.stderr


def test_no_compiler_is_one_sentence(artifact, tmp_path):
    """A machine without a C++ compiler, with nothing in the store."""
    environment = {**os.environ, "CXX": "no-such-compiler", "TERN_HW_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tern_hw.simulate", str(artifact), LAYER, *SMALL_ARRAY],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
        env=environment,
    )
    assert done.returncode == 2
    assert "error: no-such-compiler must be installed" in done.stderr
    assert "Traceback" not in done.stderr
