"""Ratios of switching: a model's layers out of files, their record, and what is a regression."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from tern_hw import validate
from tern_hw.config import ArrayConfig, OutputFormat, Packing
from tern_hw.errors import TernError
from tern_hw.gates.layer import random_layer
from tern_hw.gates.real import real_layer
from tern_hw.validation import switching, switching_record
from tests.artifacts import save

NAMES = ("a.q_proj", "b.down_proj")


def layer_of(seed):
    return random_layer(seed, 64, 192, 4, ArrayConfig(packing="base3"), zeros=0.45)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two layers as an artifact, their former weights and their inputs; by option."""
    folder = tmp_path_factory.mktemp("model")
    layers = {name: layer_of(seed) for seed, name in enumerate(NAMES)}
    save(
        folder / "artifact",
        layers={name: layer.matrix for name, layer in layers.items()},
        metadata={"method": "by hand", "origin": "nowhere", "secret": 1},
    )
    for path, tensors in {
        folder / "teacher.safetensors": {f"{name}.weight": layers[name].weight for name in NAMES},
        folder / "x.safetensors": {name: layers[name].tokens for name in NAMES},
    }.items():
        save_file(tensors, path)
    return {
        "--artifact": str(folder / "artifact"),
        "--weights": str(folder / "teacher.safetensors"),
        "--activations": str(folder / "x.safetensors"),
    }


def arguments(files, *names, rows=8):
    found = [part for pair in files.items() for part in pair]
    return [*found, "--layer", *names, "--rows", str(rows)]


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Keep a record of seeded cases alone, in a folder of its own."""
    path = tmp_path / "switching.json"
    path.write_text(json.dumps({"errors": {switching.QUICK[0].name: 0.15}}))
    monkeypatch.setattr(switching_record, "RECORD", path)
    return path


@pytest.fixture
def gates(monkeypatch):
    """Let gates take so many pJ a cycle without being synthesised: near the table's."""
    taken = {"2bit": 64 * 0.14, "base3": 64 * 0.19, "fp16": 1.5, "fp32": 2.1}
    monkeypatch.setattr(switching, "emit_block", lambda config, name: (name, config.packing))
    monkeypatch.setattr(
        switching, "convert", lambda component, name: "fp32" if component.wide else "fp16"
    )
    monkeypatch.setattr(
        switching,
        "measure",
        lambda text, top, stimulus, warm_up: SimpleNamespace(
            per=lambda count: SimpleNamespace(value=taken[text] / count)
        ),
    )
    return taken


def test_a_layer_comes_out_of_its_files(files):
    paths = {"activations": files["--activations"], "weights": files["--weights"]}
    found = real_layer(files["--artifact"], NAMES[1], **paths)
    wanted = layer_of(1)
    assert (found.matrix.digits() == wanted.matrix.digits()).all()
    assert np.array_equal(found.weight, wanted.weight)
    assert np.array_equal(found.tokens, wanted.tokens)
    assert found.origin == NAMES[1]
    with pytest.raises(TernError, match=r"x\.safetensors must have a tensor 'a\.q_proj\.weight'"):
        real_layer(files["--artifact"], NAMES[0], **paths | {"weights": files["--activations"]})


def test_cases_of_a_layer_are_both_packings_and_sums():
    layer = layer_of(3)
    cases = switching.layer_cases(layer)
    kinds = {(case.config.packing, case.accumulator) for case in cases}
    assert kinds == {(packing, sums) for packing in Packing for sums in OutputFormat}
    assert len(cases) == 4
    assert {case.config.lanes for case in cases} == {64}
    assert all(case.layer() is layer for case in cases)
    assert cases[0].data == f"{layer.origin}, 64 rows, 4 tokens, {layer.zeros:.1%} zeros"


@pytest.mark.usefixtures("gates")
def test_zeros_of_the_layer_enter_the_table():
    few, many = (
        next(switching.check_ratios(switching.layer_cases(layer, lanes=16)[:1]))
        for layer in (
            random_layer(1, 16, 64, 2, ArrayConfig(lanes=16), zeros=share) for share in (0.2, 0.8)
        )
    )
    assert many["predicted"] > few["predicted"]


def test_layers_are_measured_recorded_and_held_to_their_record(files, record, gates, capsys):
    command = arguments(files, *NAMES)
    assert validate.main([*command, "--refit"]) == 0
    kept = json.loads(record.read_text())
    assert kept["errors"] == {switching.QUICK[0].name: 0.15}
    assert len(kept["layers"]) == 8
    assert kept["layers"][0]["made_by"] == {"method": "by hand", "origin": "nowhere"}
    assert kept["layers"][0]["name"].startswith("64 lanes int8 2bit, sum in fp16, a.q_proj, 8 rows")
    capsys.readouterr()
    assert validate.main([*command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["switching"]
    assert [each["error"] for each in facts["ratios"]] == [each["error"] for each in kept["layers"]]
    assert facts["recorded"] == facts["ratios"]
    gates["2bit"] *= 0.5
    assert validate.main(command) == 1
    assert "error must be at most the recorded" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (0.7, 1), (1.4, 1)])
def test_a_layer_without_a_record_is_held_to_the_bar(files, record, gates, factor, status):
    gates["base3"] *= factor
    assert validate.main(arguments(files, NAMES[0])) == status


def test_recorded_layers_are_held_to_the_tables_of_today(files, record, gates, monkeypatch):
    assert validate.main([*arguments(files, NAMES[0]), "--refit"]) == 0
    found = switching_record.switching_facts(False, [layer_of(5)], lambda text: None)
    assert [each["error"] for each in found["recorded"]] == [
        each["recorded_error"] for each in found["recorded"]
    ]
    monkeypatch.setattr(switching, "TECHNOLOGY", "7nm")
    worse = switching_record.switching_facts(False, [layer_of(5)], lambda text: None)["regressions"]
    assert any(NAMES[0] in sentence for sentence in worse)


def test_seeded_cases_are_recorded_beside_a_model_s(record, gates, monkeypatch):
    monkeypatch.setattr(switching, "FULL", switching.QUICK)
    record.write_text(json.dumps({"errors": {}, "layers": [{"name": "kept"}]}))
    switching_record.record_seeded(lambda text: None)
    kept = json.loads(record.read_text())
    assert list(kept["errors"]) == [switching.QUICK[0].name]
    assert kept["layers"] == [{"name": "kept"}]


@pytest.mark.parametrize(
    ("drop", "more", "sentence"),
    [
        ("--weights", [], "--artifact must stand beside --activations, --weights and --layer"),
        ("--artifact", [], "--artifact must stand beside --activations, --weights and --layer"),
        (None, ["--part", "cycles"], "--part must be switching beside --artifact, not cycles"),
        (None, ["--rows", "65"], "rows must be from 1 to the layer's 64, not 65"),
        (None, ["--rows", "6"], "rows must be a multiple of 4, not 6"),
        (None, ["--layer", "c.proj"], "c.proj"),
    ],
)
@pytest.mark.usefixtures("record", "gates")
def test_a_command_that_lacks_something_is_refused(files, drop, more, sentence):
    given = {name: value for name, value in files.items() if name != drop}
    with pytest.raises(TernError, match=sentence):
        validate.main([*arguments(given, NAMES[0]), *more])


def test_the_record_has_layers_of_a_model_within_the_bar():
    recorded = switching_record._read()["layers"]
    assert len({each["name"].split(",")[2] for each in recorded}) >= 3
    assert all(each["made_by"]["origin"].startswith("SmolLM2") for each in recorded)
    assert all(abs(each["error"]) <= switching.BAR for each in recorded)
    assert not [
        sentence
        for each in recorded
        for sentence in switching_record._worse(switching.beside_record(each))
    ]


@pytest.mark.slow
def test_a_small_model_s_layer_is_within_the_bar(files, record):
    assert validate.main(arguments(files, NAMES[0], rows=64)) == 0
