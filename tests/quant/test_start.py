"""Training from an artifact's levels: to the bit at first, and refused where it cannot be."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from quant.exports.convert import export_model, export_prepared
from quant.methods import method_config, named_method, quantized_linears
from quant.methods.base import latent_weight
from quant.methods.dlt import MARGIN, DltConfig, latent_for
from quant.models.prepared import Prepared
from quant.ternary import TernaryFit
from quant.training.recipe import Recipe
from quant.training.start import begin_from, describe_start, open_start
from quant.training.student import make_student
from tern_hw.artifact import load_artifact
from tern_hw.errors import TernError
from tern_hw.matrix import TernaryMatrix
from tests.quant.exports import command
from tests.quant.models import random_llama

LAYER = "model.layers.1.mlp.gate_proj"


def recipe(**options: object) -> Recipe:
    return Recipe(options=DltConfig(**{"group_size": 16, "codes": "nearest", **options}))


def calibrated(path: Path, **options: object) -> Path:
    """Write an artifact of levels that the weights alone would not give."""
    model, method = random_llama(), named_method("aware")
    config = method_config("aware", {"group_size": 16, "rounds": 1, **options})
    tokens = torch.randint(0, 256, (4, 16), generator=torch.Generator().manual_seed(5))
    method.prepare(model, config, calibration=tokens)
    export_prepared(Prepared(model, method, config, "random", {"seed": 5}), path)
    return path


def test_a_student_begins_with_the_artifacts_levels_to_the_bit(tmp_path: Path):
    artifact = open_start(calibrated(tmp_path / "a"))
    teacher = random_llama()
    student = make_student(teacher, recipe())
    begin_from(student, artifact)
    layers = list(quantized_linears(student))
    assert len(layers) == 14
    for name, linear, quantizer in layers:
        fit = TernaryFit.from_matrix(artifact.layer(name))
        assert torch.equal(linear.weight, fit.dequantize())
        assert torch.equal(quantizer.fit(latent_weight(linear)).trits, fit.trits)
        # The weights that stay are the model's own; trits of another kind moved some.
        moved = latent_weight(linear) != teacher.get_submodule(name).weight
        assert 0 < moved.float().mean() < 0.6


def test_a_weight_moves_no_further_than_its_trit_asks():
    weight = torch.tensor([[-2.0, -0.3, 0.2, 0.45, 0.9, 3.0]])
    trits = torch.tensor([[-1, 0, 1, 0, 0, 1]], dtype=torch.int8)
    half = torch.ones(1, 1, dtype=torch.float16)
    latent = latent_for(weight, TernaryFit(trits, half, 0 * half, "row"))
    edge = 0.5 - MARGIN
    assert torch.allclose(latent, torch.tensor([[-2.0, -0.3, 1 - edge, edge, edge, 3.0]]))


def test_a_group_without_a_scale_leaves_its_weights():
    weight = torch.tensor([[-2.0, 0.5]])
    zero = torch.zeros(1, 1, dtype=torch.float16)
    fit = TernaryFit(torch.tensor([[1, 0]], dtype=torch.int8), zero, zero + 1, "row")
    assert torch.equal(latent_for(weight, fit), weight)


def test_a_matrix_with_a_negative_scale_gives_the_same_weights():
    scale = torch.tensor([[-0.5, 0.25]], dtype=torch.float16)
    matrix = TernaryMatrix.from_digits(
        torch.tensor([[0, 1, 2, 2]], dtype=torch.uint8).numpy(),
        scale.numpy(),
        scale.numpy(),
        group_size=2,
        packing="2bit",
    )
    fit = TernaryFit.from_matrix(matrix)
    assert torch.equal(fit.scale, scale.abs())
    assert torch.equal(fit.dequantize(), torch.tensor([[0.0, -0.5, 0.5, 0.5]]))


def test_the_start_is_described_by_its_tensors_and_its_making(tmp_path: Path):
    first, second = (
        describe_start(load_artifact(calibrated(tmp_path / str(rounds), rounds=rounds)))
        for rounds in (1, 0)
    )
    assert (first["method"], first["training"]) == ("aware", {"seed": 5})
    assert first["sha256"] != second["sha256"]


def refusal(path: Path, **options: object) -> str:
    student = make_student(random_llama(), recipe(**options))
    with pytest.raises(TernError) as refused:
        begin_from(student, open_start(path))
    return str(refused.value)


def artifact(path: Path, **options: object) -> Path:
    export_model(random_llama(), path, origin="random", group_size=16, **options)
    return path


def test_a_rule_that_ignores_levels_is_refused(tmp_path: Path):
    assert "must be dlt with codes=nearest" in refusal(artifact(tmp_path / "a"), codes="threshold")


def test_another_method_is_refused(tmp_path: Path):
    student = make_student(
        random_llama(), Recipe(method="twn", options=method_config("twn", {"group_size": 16}))
    )
    with pytest.raises(TernError, match="must be dlt with codes=nearest"):
        begin_from(student, open_start(artifact(tmp_path / "a")))


def test_another_group_size_is_refused(tmp_path: Path):
    error = refusal(artifact(tmp_path / "a"), group_size=32)
    assert "model.layers.0.self_attn.q_proj must have shape (40, 40) and group size 32" in error


def test_an_artifact_of_other_layers_is_refused(tmp_path: Path):
    path = artifact(tmp_path / "a", layers=("*.mlp.*",))
    assert refusal(path).endswith(
        "must have the student's 14 layers, not none named model.layers.0.self_attn.q_proj"
    )
    assert refusal(path, layers=("*.gate_proj",)).endswith(
        "must have the student's 2 layers, not 6 of them"
    )


def test_shifts_are_refused_for_a_student_without_them(tmp_path: Path):
    assert "must have no shift" in refusal(artifact(tmp_path / "a"), shift=False)


def test_what_is_no_artifact_is_refused(tmp_path: Path):
    with pytest.raises(TernError, match="start must be the folder of a ternary artifact"):
        open_start(tmp_path)


# ----------------------------------------------------------------- calibrated methods in an export


def exported(path: Path, model: Path, text: Path, *options: object) -> dict[str, Tensor]:
    assert command(
        model, "--output", path, "--method", "aware", "--group-size", 16, "--set", "rounds=1",
        "--text", text, "--split", "all", "--window", 16, "--windows", 4, *options,
    ) == 0  # fmt: skip
    artifact = load_artifact(path)
    return {name: TernaryFit.from_matrix(artifact.layer(name)).dequantize() for name in [LAYER]}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(32 + (i * i + 7 * i) % 90 for i in range(3000)))
    return path


def test_an_export_by_a_calibrated_method_reads_the_text(
    llama_folder: Path, text: Path, tmp_path: Path
):
    first, again, other = (
        exported(tmp_path / name, llama_folder, text, "--seed", seed)[LAYER]
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
