"""Training from an artifact's levels: to the bit at first, and refused where it cannot be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from quant.exports.convert import export_model, export_prepared
from quant.methods import method_config, named_method, quantized_linears
from quant.methods.base import latent_weight
from quant.methods.dlt import MARGIN, DltConfig, latent_for
from quant.models.prepared import Prepared, load_prepared
from quant.ternary import TernaryFit
from quant.text.batches import Batches
from quant.training.recipe import Recipe
from quant.training.start import Start, begin_from, fit_start, open_start
from quant.training.student import make_student
from tern_hw.artifact import load_artifact
from tern_hw.errors import TernError
from tern_hw.matrix import TernaryMatrix
from tests.quant.exports import LAYER, command, prepared_folder, torch_bytes
from tests.quant.models import random_llama
from tests.quant.trainings import TOKENS


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
    artifact = load_artifact(calibrated(tmp_path / "a"))
    teacher = random_llama()
    student = make_student(teacher, recipe())
    begin_from(student, open_start(tmp_path / "a"), recipe())
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
        open_start(calibrated(tmp_path / str(rounds), rounds=rounds)).describe()
        for rounds in (1, 0)
    )
    assert (first["method"], first["training"]) == ("aware", {"seed": 5})
    assert first["sha256"] != second["sha256"]


def refusal(path: Path, **options: object) -> str:
    student = make_student(random_llama(), recipe(**options))
    with pytest.raises(TernError) as refused:
        begin_from(student, open_start(path), recipe(**options))
    return str(refused.value)


def artifact(path: Path, **options: object) -> Path:
    export_model(random_llama(), path, origin="random", group_size=16, **options)
    return path


def test_a_rule_that_ignores_levels_is_refused(tmp_path: Path):
    assert "must be dlt with codes=nearest" in refusal(artifact(tmp_path / "a"), codes="threshold")


def test_another_method_is_refused(tmp_path: Path):
    twn = Recipe(method="twn", options=method_config("twn", {"group_size": 16}))
    with pytest.raises(TernError, match="must be dlt with codes=nearest"):
        begin_from(make_student(random_llama(), twn), open_start(artifact(tmp_path / "a")), twn)


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


def test_what_is_neither_artifact_nor_model_is_refused(tmp_path: Path):
    with pytest.raises(
        TernError, match="start must be a training-free method's name, or the folder of"
    ):
        open_start(tmp_path)


# --------------------------------------------------------------------- from a method of that name


def fitted(folder: Path, start: str = "gptq", tokens: Tensor = TOKENS, **fields: Any) -> Start:
    wanted = replace(recipe(), start_from=start, window=16, **fields)
    return fit_start(folder, random_llama(), wanted, tokens, origin="random", windows=4)


def test_a_methods_levels_are_fitted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = fitted(tmp_path / "start")
    model, method = random_llama(), named_method("gptq")
    config = method_config("gptq", {"group_size": 16})
    method.prepare(model, config, calibration=Batches(TOKENS, 16, 4, 0).at(0))
    student = make_student(random_llama(), recipe())
    begin_from(student, first, recipe())
    for name, linear, _ in quantized_linears(model):
        assert torch.equal(student.get_submodule(name).weight, linear.weight)
    monkeypatch.setattr(type(method), "prepare", None)
    assert fitted(tmp_path / "start").describe() == first.describe()


def test_a_method_is_fitted_to_the_layers_that_the_recipe_trains(tmp_path: Path):
    options = recipe(layers=("*mlp*",)).options
    fitted(tmp_path / "start", "als", options=options)
    layers = load_artifact(tmp_path / "start").layers
    assert layers
    assert all(".mlp." in name for name in layers)


def test_a_start_of_another_text_is_not_taken(tmp_path: Path):
    fitted(tmp_path / "start", "als")
    with pytest.raises(TernError, match="must be fitted by als to this model and text, not to"):
        fitted(tmp_path / "start", "als", TOKENS[1:])
    with pytest.raises(TernError, match="must be fitted by rtn to this"):
        fitted(tmp_path / "start", "rtn")


@pytest.mark.parametrize("name", ["fdb", "dlt", "pb_llm"])
def test_a_start_must_be_ternary_and_training_free(tmp_path: Path, name: str):
    with pytest.raises(TernError, match=f"training-free ternary method, not {name}"):
        fitted(tmp_path / "start", name)
    assert not (tmp_path / "start").exists()


# ------------------------------------------------------------------------- from a trained model


def trained(path: Path, changed: str = "", **options: object) -> Path:
    """Write a model as a training leaves it: scales, weights and perhaps another tensor moved."""
    model = random_llama()
    if changed:
        with torch.no_grad():
            model.get_parameter(changed).mul_(1.5)
    return prepared_folder(path, model=model, **{"codes": "nearest", **options})


def state(student: PreTrainedModel) -> dict[str, bytes]:
    return {name: torch_bytes(tensor) for name, tensor in student.state_dict().items()}


def test_a_student_goes_on_where_a_training_left_its_model(tmp_path: Path):
    changed = "model.layers.0.input_layernorm.weight"
    start = open_start(trained(tmp_path / "p", changed))
    teacher = random_llama()
    student = make_student(teacher, replace(recipe(), trained="norms"))
    before = state(student)
    begin_from(student, start, recipe())
    assert state(student) == state(load_prepared(tmp_path / "p").model) != before
    assert state(teacher) == state(random_llama())
    assert start.describe()["method"] == "dlt"


def test_a_norm_that_the_recipe_does_not_train_is_refused(tmp_path: Path):
    changed = "model.layers.0.input_layernorm.weight"
    start = open_start(trained(tmp_path / "p", changed))
    student = make_student(random_llama(), recipe())
    with pytest.raises(TernError, match=f"start's {changed} must be the teacher's, since"):
        begin_from(student, start, recipe())


def test_an_artifact_of_a_trained_model_brings_its_norms(tmp_path: Path):
    changed = "model.layers.0.input_layernorm.weight"
    assert command(trained(tmp_path / "p", changed), "--output", tmp_path / "a") == 0
    student = make_student(random_llama(), replace(recipe(), trained="norms"))
    begin_from(student, open_start(tmp_path / "a"), recipe())
    model = load_prepared(tmp_path / "p").model
    assert torch.equal(student.get_parameter(changed), model.get_parameter(changed))
    assert torch.equal(student.get_submodule(LAYER).weight, model.get_submodule(LAYER).weight)


def test_a_model_of_another_shape_is_refused(tmp_path: Path):
    start = open_start(trained(tmp_path / "p"))
    student = make_student(random_llama(), recipe())
    student.resize_token_embeddings(300)
    with pytest.raises(TernError, match="must have tensors of the student's, not model"):
        begin_from(student, start, recipe())


def test_other_options_than_the_trained_models_are_refused(tmp_path: Path):
    start = open_start(trained(tmp_path / "p", ste="clipped"))
    with pytest.raises(TernError, match="must be of the recipe's method and options"):
        begin_from(make_student(random_llama(), recipe()), start, recipe())
