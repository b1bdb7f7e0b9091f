"""The training loop: it learns, resumes to the same bits, and stops before it breaks things."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from transformers.models.llama.modeling_llama import LlamaAttention

from quant.methods.dlt import DltConfig
from quant.training.loop import Trainer
from quant.training.recipe import Losses, Recipe
from quant.training.student import make_student, parameter_groups
from tern_hw.errors import TernError
from tests.quant.families import FAMILIES, family_model
from tests.quant.models import random_llama
from tests.quant.trainings import RECIPE, TOKENS


def trainer(folder: Path, recipe: Recipe = RECIPE, **options: object) -> Trainer:
    teacher = random_llama()
    student = make_student(teacher, recipe)
    folder.mkdir(exist_ok=True)
    return Trainer(teacher, student, recipe, TOKENS, folder, origin="random", **options)


def bits(each: Trainer) -> dict[str, bytes]:
    return {name: p.detach().numpy().tobytes() for name, p in each.parameters.items()}


# ------------------------------------------------------------------------------------------ student


def test_what_does_not_move_is_the_teachers_own_tensor():
    teacher = random_llama()
    student = make_student(teacher, RECIPE)
    ours, theirs = dict(student.named_parameters()), dict(teacher.named_parameters())
    shared = {name for name in theirs if name in ours and ours[name] is theirs[name]}
    assert shared == {name for name in theirs if "_proj" not in name}
    assert not any(ours[name].requires_grad for name in shared)


def test_scales_learn_at_a_tenth_of_the_weights_rate():
    student = make_student(random_llama(), RECIPE)
    weights, scales = parameter_groups(student, RECIPE)
    assert (weights["factor"], scales["factor"]) == (1.0, 0.1)
    assert len(weights["params"]) == 14
    assert len(scales["params"]) == 28


@pytest.mark.parametrize(("trained", "more"), [("norms", 5), ("all", 7)])
def test_norms_and_tables_move_where_the_recipe_says_so(trained: str, more: int):
    student = make_student(random_llama(), RECIPE.changed(trained=trained))
    groups = parameter_groups(student, RECIPE.changed(trained=trained))
    assert len(groups[2]["params"]) == more


# ----------------------------------------------------------------------------------------- the loop


def test_training_lowers_every_part_of_the_loss(tmp_path: Path):
    recipe = RECIPE.changed(steps=60, warmup_steps=5, learning_rate=2e-3, losses=Losses(features=1))
    each = trainer(tmp_path, recipe)
    rows: list[dict[str, float]] = []
    each.train(rows.append)
    for part in ("total", "kl", "features"):
        first, last = (sum(row[part] for row in rows[at]) for at in (slice(8), slice(-8, None)))
        assert last < 0.8 * first, part


def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path):
    whole = trainer(tmp_path / "whole", checkpoint_every=3)
    whole.train()
    trainer(tmp_path / "parts", checkpoint_every=3).train(steps=5)
    rest = trainer(tmp_path / "parts", checkpoint_every=3)
    rows: list[dict[str, float]] = []
    assert rest.train(rows.append) == 8
    assert [row["step"] for row in rows] == [6, 7, 8]
    assert bits(rest) == bits(whole)
    assert _losses(tmp_path / "parts") == _losses(tmp_path / "whole")


def test_steps_after_the_checkpoint_are_done_again(tmp_path: Path):
    whole = trainer(tmp_path / "whole", checkpoint_every=3)
    whole.train()
    dying = trainer(tmp_path / "died", checkpoint_every=3)

    def die(row: dict[str, float]) -> None:
        if row["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dying.train(die)
    assert len(_losses(tmp_path / "died")) == 5
    rest = trainer(tmp_path / "died", checkpoint_every=3)
    rest.train()
    assert bits(rest) == bits(whole)
    assert _losses(tmp_path / "died") == _losses(tmp_path / "whole")


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_trains(family: str, tmp_path: Path):
    teacher = family_model(family)
    recipe = RECIPE.changed(steps=2, options=DltConfig(group_size=16))
    student = make_student(teacher, recipe)
    each = Trainer(teacher, student, recipe, TOKENS % 32, tmp_path, origin=family)
    before = bits(each)
    each.train()
    assert all(old != new for old, new in zip(before.values(), bits(each).values(), strict=True))


def test_accumulation_changes_nothing_but_rounding(tmp_path: Path):
    one, two = trainer(tmp_path / "1"), trainer(tmp_path / "2", RECIPE.changed(accumulation=2))
    one.train(steps=1)
    two.train(steps=1)
    first, second = _losses(tmp_path / "1")[0], _losses(tmp_path / "2")[0]
    assert float(first["kl"]) == pytest.approx(float(second["kl"]), rel=1e-5)
    assert float(first["gradient_norm"]) == pytest.approx(float(second["gradient_norm"]), rel=1e-2)


def test_recomputed_activations_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    forward = LlamaAttention.forward

    def counted(self: LlamaAttention, *arguments: Any, **named: Any) -> Any:
        calls.append("attention")
        return forward(self, *arguments, **named)

    monkeypatch.setattr(LlamaAttention, "forward", counted)
    plain = trainer(tmp_path / "plain")
    plain.train(steps=2)
    without = len(calls)
    saving = trainer(tmp_path / "saving", RECIPE.changed(gradient_checkpointing=True))
    saving.train(steps=2)
    assert len(calls) - without == 1.5 * without  # the student's blocks twice, the teacher's once
    assert bits(saving) == bits(plain)


def test_bfloat16_leaves_the_callers_teacher_and_the_student_in_float32(tmp_path: Path):
    teacher, recipe = random_llama(), RECIPE.changed(precision="bf16", steps=1, warmup_steps=0)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    each = Trainer(
        teacher, make_student(teacher, recipe), recipe, TOKENS, tmp_path, origin="random"
    )
    each.train()
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    seen: list[torch.dtype] = []
    layer = each.model.model.layers[0].mlp.up_proj
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    each.model(TOKENS[None, :16])
    assert seen == [torch.float32]


def test_a_parameter_that_no_loss_reaches_does_not_stop_a_run(tmp_path: Path):
    recipe = RECIPE.changed(losses=Losses(kl=0, features=1), trained="all")
    trainer(tmp_path, recipe).train(steps=3)
    assert trainer(tmp_path, recipe).train(steps=4) == 4


def test_tokens_of_another_vocabulary_are_refused(tmp_path: Path):
    teacher = random_llama()
    tokens = torch.full((200,), 300)
    with pytest.raises(
        TernError, match="tokens must be from 0 to 256, as the model has them, not 300"
    ):
        Trainer(teacher, make_student(teacher, RECIPE), RECIPE, tokens, tmp_path, origin="")


def test_a_window_beyond_the_context_is_refused(tmp_path: Path):
    with pytest.raises(TernError, match="window must be at most the model's context of 64, not 65"):
        trainer(tmp_path, RECIPE.changed(window=65))


def test_another_teacher_does_not_take_up_a_run(tmp_path: Path):
    trainer(tmp_path).train(steps=2)
    teacher = random_llama(1)
    student = make_student(teacher, RECIPE)
    with pytest.raises(TernError, match="must have the recipe, model and text it began with"):
        Trainer(teacher, student, RECIPE, TOKENS, tmp_path, origin="random").train()


def test_what_a_killed_process_left_is_removed(tmp_path: Path):
    trainer(tmp_path).train(steps=2)
    (tmp_path / ".checkpoint.0badcafe.tmp").mkdir()
    trainer(tmp_path).train(steps=3)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "log.csv", "loss.png"}


def test_another_recipe_does_not_take_up_a_run(tmp_path: Path):
    trainer(tmp_path).train(steps=2)
    with pytest.raises(TernError, match="must have the recipe, model and text it began with"):
        trainer(tmp_path, RECIPE.changed(learning_rate=1.0)).train()


@pytest.mark.parametrize(
    ("tensor", "step"),
    # A scale shows in the next step's loss; a weight in none: its group's trits turn 0.
    [("0.scale", 4), ("original", 4)],
)
def test_what_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    tensor: str, step: int, tmp_path: Path
):
    each = trainer(tmp_path, checkpoint_every=2)
    kept: dict[str, bytes] = {}

    def poison(row: dict[str, float]) -> None:
        if row["step"] == 3:
            kept.update(
                (path.name, path.read_bytes()) for path in (tmp_path / "checkpoint").iterdir()
            )
            with torch.no_grad():
                each.parameters[f"{LAYER}.parametrizations.weight.{tensor}"][0, 0] = torch.nan

    fault = rf"not so at step {step} \(a parameter of {LAYER} is not finite\)"
    with pytest.raises(TernError, match=fault):
        each.train(poison)
    assert kept
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}


LAYER = "model.layers.1.mlp.down_proj"


def test_a_step_that_explodes_is_named_by_its_layer(tmp_path: Path):
    each = trainer(tmp_path, RECIPE.changed(learning_rate=1e38, clip_norm=0.0, warmup_steps=0))
    with pytest.raises(TernError, match=r"must be finite, not so at step \d+ \(.*model.layers.0"):
        each.train()


def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trainer(tmp_path).train(steps=2)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}

    def full(tensors: object, path: Path, metadata: object = None) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("quant.models.tensors.save_file", full)
    with pytest.raises(TernError, match=r"disk must have room for parameters\.safetensors"):
        trainer(tmp_path).train()
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "log.csv", "loss.png"}


def test_a_damaged_checkpoint_is_refused(tmp_path: Path):
    trainer(tmp_path).train(steps=2)
    path = tmp_path / "checkpoint" / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(TernError, match="must have the sha256 that its state records"):
        trainer(tmp_path).train()


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path):
    with pytest.raises(
        TernError, match=r"multiple of processes times accumulation \(1 x 3\), not 2"
    ):
        trainer(tmp_path, RECIPE.changed(accumulation=3))


def test_sharding_takes_several_processes(tmp_path: Path):
    with pytest.raises(TernError, match=r"sharding must have several processes, .* not 1"):
        trainer(tmp_path, sharded=True)


def test_the_log_has_a_picture(tmp_path: Path):
    trainer(tmp_path).train()
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def _losses(folder: Path) -> list[dict[str, str]]:
    """Return a run's log without the one column that time decides."""
    path = folder / "log.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k != "tokens_per_s"} for row in csv.DictReader(file)
        ]
