"""`python -m tern_hw.simulate` over many layers of an artifact, and files of activations."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sim.stimuli import random_layer
from tern_hw import simulate
from tern_hw.artifact import save_artifact
from tern_hw.config import Activation, ArrayConfig
from tern_hw.errors import TernError
from tern_hw.flows import harness
from tern_hw.reference import quantize_tokens
from tern_hw.simulation import simulate_layer
from tests.simulations import SMALL_ARRAY, small

ROOT = Path(__file__).parent.parent
SMALL = small(8, 2, 16, "base3")
#: Idle and backpressure of the runs.
STALLS = [(0.0, 0.0), (0.4, 0.0), (0.0, 0.6), (0.3, 0.3)]
LAYER = "model.layers.0.mlp.up_proj"


UPS = [f"model.layers.{block}.mlp.up_proj" for block in range(3)]
DOWN = "model.layers.0.mlp.down_proj"
#: Shapes of the layers of `deep`.
SHAPES = {**dict.fromkeys(UPS, (21, 100)), DOWN: (5, 30)}


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """An artifact of three blocks; all of its layers run on one array."""
    folder = tmp_path_factory.mktemp("simulate") / "deep"
    rng = np.random.default_rng(12)
    config = ArrayConfig(lanes=32, group_size=32)
    layers = {
        name: random_layer(rng, *shape, config).matrix(config) for name, shape in SHAPES.items()
    }
    save_artifact(folder, layers=layers, tensors={}, model_config={}, metadata={})
    return folder


def float_tokens(tokens: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(13)
    return {
        name: rng.normal(0, 3, (tokens, k)).astype(np.float32) for name, (_, k) in SHAPES.items()
    }


@pytest.fixture
def operands(monkeypatch):
    """What the command simulates, layer by layer."""
    seen = {}

    def keep(matrix, activations, config, **options):
        seen[matrix.name] = activations, config
        return simulate_layer(matrix, activations, config, **options)

    monkeypatch.setattr(simulate, "simulate_layer", keep)
    return seen


def test_glob_takes_every_layer_and_adds_up(deep, tmp_path, capsys, operands):
    tensors = float_tokens()
    save_file(tensors, tmp_path / "x.safetensors")
    options = ["--activations", str(tmp_path / "x.safetensors"), *SMALL_ARRAY, "--json"]
    assert simulate.main([str(deep), "*", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [facts["layer"] for facts in report["layers"]] == list(SHAPES) == list(operands)
    for name, (activations, config) in operands.items():
        assert config.activation is Activation.INT8
        assert np.array_equal(activations, quantize_tokens(tensors[name])[0])
    totals, config = report["totals"], ArrayConfig(lanes=8, rows=2, group_size=32)
    cycles = 2 * sum(config.job_cycles(*shape) for shape in SHAPES.values())
    assert totals["layers"] == 4
    assert totals["results"] == 2 * (3 * 21 + 5)
    assert totals["mismatches"] == totals["complaints"] == 0
    assert totals["cycles"] == totals["expected_cycles"] == cycles
    weights = 2 * (3 * 21 * 100 + 5 * 30)
    assert totals["weights_per_cycle"] == round(weights / cycles, 3)


def test_table_has_a_row_for_each_kind_of_layer(deep, capsys):
    assert simulate.main([str(deep), "*", "--tokens", "2", *SMALL_ARRAY]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    config = ArrayConfig(lanes=8, rows=2, group_size=32)
    ups, down = (
        count * config.job_cycles(*SHAPES[name]) for count, name in ((6, LAYER), (2, DOWN))
    )
    assert ["mlp.up_proj", "3", "21", "x", "100", "126", "0", f"{ups:,}", f"{ups:,}"] in [
        row[:-1] for row in rows
    ]
    assert ["mlp.down_proj", "1", "5", "x", "30", "10", "0", f"{down}", f"{down}"] in [
        row[:-1] for row in rows
    ]
    total = f"{ups + down:,}"
    assert ["all", "4", "136", "0", total, total] in [row[:-1] for row in rows]
    assert not any(row[:1] == ["WRONG"] for row in rows)


def test_glob_takes_the_layers_it_matches(deep, capsys, operands):
    assert simulate.main([str(deep), "*.up_proj", *SMALL_ARRAY, "--idle", "0.3"]) == 0
    assert list(operands) == UPS
    assert "stalls: activation" in capsys.readouterr().out


def test_one_layer_takes_its_own_tensor(deep, tmp_path, capsys, operands):
    tensors = float_tokens()
    save_file(tensors, tmp_path / "x.safetensors")
    options = ["--activations", str(tmp_path / "x.safetensors"), "--tokens", "1", *SMALL_ARRAY]
    assert simulate.main([str(deep), UPS[1], *options]) == 0
    assert f"{UPS[1]}: 21 outputs x 100 inputs" in capsys.readouterr().out
    assert np.array_equal(operands[UPS[1]][0], quantize_tokens(tensors[UPS[1]][:1])[0])


def test_int8_tensors_go_in_as_they_are(deep, tmp_path, capsys, operands):
    tensors = {name: np.full((1, k), -128, np.int8) for name, (_, k) in SHAPES.items()}
    save_file(tensors, tmp_path / "x.safetensors")
    options = ["--activations", str(tmp_path / "x.safetensors"), *SMALL_ARRAY]
    assert simulate.main([str(deep), "*", *options]) == 0
    assert all(np.array_equal(operands[name][0], tensors[name]) for name in SHAPES)


@pytest.mark.parametrize(("dtype", "options"), [("float32", ["--activation", "fp16"]), ("<f2", [])])
def test_fp16_array_takes_floats_rounded(deep, tmp_path, capsys, operands, dtype, options):
    tensors = {name: each.astype(dtype) for name, each in float_tokens(1).items()}
    save_file(tensors, tmp_path / "x.safetensors")
    options = ["--activations", str(tmp_path / "x.safetensors"), *options, *SMALL_ARRAY]
    assert simulate.main([str(deep), "*", *options]) == 0
    for name, (activations, config) in operands.items():
        assert config.activation is Activation.FP16
        assert activations.tobytes() == tensors[name].astype(np.float16).tobytes()


@pytest.mark.usefixtures("fresh_builds")
def test_one_wrong_layer_among_many_is_status_1(deep, monkeypatch, capsys):
    right = ArrayConfig.job_cycles
    monkeypatch.setattr(
        ArrayConfig, "job_cycles", lambda config, n, k: right(config, n, k) + (k == 30)
    )
    assert simulate.main([str(deep), "*", *SMALL_ARRAY]) == 1
    out = capsys.readouterr().out
    (wrong,) = [line for line in out.splitlines() if line.startswith("WRONG")]
    assert wrong.startswith(f"WRONG {DOWN}: job 0 must take exactly")


@pytest.mark.usefixtures("fresh_builds")
def test_hang_among_many_names_the_layer(deep, monkeypatch, capsys):
    monkeypatch.setattr(harness, "LIMIT_CYCLES", 0)
    monkeypatch.setattr(harness, "LIMIT_FACTOR", 0.3)
    assert simulate.main([str(deep), "*", *SMALL_ARRAY]) == 1
    assert f"error: {UPS[0]}: job 0 must end within" in capsys.readouterr().err


def changed(**tensors: "np.ndarray | None") -> dict[str, np.ndarray]:
    """Return a file's tensors with that of the last layer, the down projection, replaced."""
    given = {**float_tokens(), DOWN: tensors["down"]}
    return {name: each for name, each in given.items() if each is not None}


def spoilt(value: float, dtype: str = "float32") -> np.ndarray:
    array = np.ones((2, 30), dtype)
    array[1, 7] = value
    return array


@pytest.mark.parametrize(
    ("down", "options", "sentence"),
    [
        (None, [], rf"x.safetensors must have a tensor '{DOWN}', the layer's name"),
        (
            np.ones((2, 31), np.float32),
            [],
            rf"'{DOWN}' must be .* \[M, 30\], not float32 \[2, 31\]",
        ),
        (np.ones((0, 30), np.float32), [], rf"'{DOWN}' must be .*, not float32 \[0, 30\]"),
        (np.ones(30, np.int8), [], rf"'{DOWN}' must be .*, not int8 \[30\]"),
        (np.ones((2, 30)), [], rf"'{DOWN}' must be float32, float16 or int8 .*, not F64 \[2, 30\]"),
        (spoilt(np.nan), [], rf"tensor '{DOWN}' must be finite, not nan at \[1, 7\]"),
        (spoilt(np.inf, "float16"), [], rf"tensor '{DOWN}' must be finite, not inf at \[1, 7\]"),
        (
            spoilt(65520.0),
            ["--activation", "fp16"],
            rf"'{DOWN}' rounded to float16 must be finite, not 65520.0 at \[1, 7\]",
        ),
        (
            np.ones((2, 30), np.int8),
            ["--activation", "fp16"],
            rf"^{DOWN}: activations must be float16",
        ),
        (np.ones((1, 30), np.int8), ["--tokens", "2"], r"--tokens must be from 1 to 1, not 2"),
        (
            np.ones((2, 30), np.int8),
            ["--max-k", "64"],
            rf"^{UPS[0]}.in_features must be from 1 to the array's 64",
        ),
        (
            np.ones((2, 30), np.int8),
            ["--save", "y.npy"],
            r"--save must be .* one layer, not with '\*'",
        ),
    ],
)
def test_bad_tensor_is_refused_before_anything_runs(
    down, options, sentence, deep, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(simulate, "simulate_layer", None)
    path = tmp_path / "x.safetensors"
    save_file(changed(down=down), path)
    with pytest.raises(TernError, match=sentence):
        simulate.main([str(deep), "*", "--activations", str(path), *SMALL_ARRAY, *options])
    assert capsys.readouterr().err == ""


def test_overflow_is_what_rounding_makes_of_it(deep, tmp_path, capsys):
    """65519 rounds to 65504, the largest float16."""
    path = tmp_path / "x.safetensors"
    save_file({DOWN: spoilt(65519.0)}, path)
    options = ["--activations", str(path), "--activation", "fp16", *SMALL_ARRAY]
    assert simulate.main([str(deep), DOWN, *options]) == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"--activations must be an existing file, not .*x.safetensors"),
        (b"", r"x.safetensors must be a whole safetensors file"),
        (b"\xff" * 64, r"x.safetensors must be a whole safetensors file"),
    ],
)
def test_bad_safetensors_file_is_one_sentence(content, sentence, deep, tmp_path):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TernError, match=sentence):
        simulate.main([str(deep), "*", "--activations", str(path), *SMALL_ARRAY])


def test_array_that_fits_one_of_the_layers_alone_is_refused(deep, tmp_path, monkeypatch):
    monkeypatch.setattr(simulate, "simulate_layer", None)
    np.save(tmp_path / "x.npy", np.ones((1, 100), np.int8))
    options = ["--activations", str(tmp_path / "x.npy"), *SMALL_ARRAY]
    with pytest.raises(TernError, match=rf"^{DOWN}: activations must be .* \[M, 30\], not int8"):
        simulate.main([str(deep), "*", *options])


def test_glob_that_matches_nothing_is_refused(deep):
    with pytest.raises(TernError, match=r"layer must be one of .*, not 'model.layers.7.\*'"):
        simulate.main([str(deep), "model.layers.7.*"])
