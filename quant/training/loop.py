"""The training loop: teacher and student read the same windows, the student follows."""

import contextlib
import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from quant.losses.features import feature_loss
from quant.losses.logits import deviation_aware, label_loss, teacher_divergence
from quant.models.limits import check_vocabulary, check_window
from quant.text.batches import Batches
from quant.training.checkpoint import (
    fingerprint,
    has_checkpoint,
    load_checkpoint,
    remove_remains,
    save_checkpoint,
)
from quant.training.faults import first_nonfinite
from quant.training.log import TrainingLog
from quant.training.recipe import Losses, Precision, Recipe
from quant.training.sharding import shard, whole
from quant.training.student import parameter_groups, recompute_activations
from tern_hw.errors import TernError

__all__ = ["CHECKPOINT", "LOG", "Trainer", "loss_parts"]

#: Names inside a run's folder.
CHECKPOINT: Final = "checkpoint"
LOG: Final = "log.csv"
PICTURE: Final = "loss.png"

#: Takes a step's row of the log.
Report = Callable[[dict[str, float]], None]


def loss_parts(
    losses: Losses, student: Any, teacher: Any, tokens: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the total loss of a batch, and its parts before their weights.

    Parameters
    ----------
    losses : Losses
    student, teacher : ModelOutput
        With logits ``[batch, tokens, V]`` and, where features are compared, hidden states.
    tokens : int64 [batch, tokens]
    """
    parts: dict[str, Tensor] = {}
    if losses.kl:
        parts["kl"] = teacher_divergence(student.logits, teacher.logits)
    if losses.dad:
        parts["dad"] = deviation_aware(student.logits, teacher.logits, losses.dad_exponent)
    if losses.label:
        parts["label"] = label_loss(student.logits, tokens)
    if losses.compares_features:
        parts["features"] = feature_loss(
            losses.feature_loss, losses.feature_layers, student.hidden_states, teacher.hidden_states
        )
    weighed = [getattr(losses, name) * part for name, part in parts.items()]
    return sum(weighed[1:], start=weighed[0]), {name: part.detach() for name, part in parts.items()}


@dataclass
class _Sums:
    """A step's losses, summed over its parts."""

    total: Tensor
    parts: dict[str, Tensor]


class Trainer:
    """Trains a prepared student, from its checkpoint where the folder has one.

    Parameters
    ----------
    teacher, student : PreTrainedModel
        See `quant.training.student.make_student`.
    recipe : Recipe
    tokens : int64 [T]
        The training text.
    folder : Path
        Takes `checkpoint/`, `log.csv` and `loss.png`.
    origin : str
        What the teacher is; part of what a resumed run must share.
    checkpoint_every : int
        Steps between checkpoints; the last step has one in any case.
    sharded : bool
        Each of several processes holds a part of the student (FSDP), not a copy of it (DDP). The
        teacher, which has no gradients and no moments, is whole in each.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        student: PreTrainedModel,
        recipe: Recipe,
        tokens: Tensor,
        folder: Path,
        *,
        origin: str,
        checkpoint_every: int = 100,
        sharded: bool = False,
    ) -> None:
        if checkpoint_every < 1:
            raise TernError(f"steps between checkpoints must be positive, not {checkpoint_every}")
        self.accelerator = Accelerator(mixed_precision="no")
        if sharded and self.accelerator.num_processes == 1:
            raise TernError("sharding must have several processes, as torchrun starts them, not 1")
        self.recipe = recipe
        self.folder = folder
        self.checkpoint_every = checkpoint_every
        self.batches = Batches(tokens, recipe.window, recipe.batch, recipe.seed)
        self._check_shares()
        check_window(student, recipe.window)
        check_vocabulary(student, tokens)
        self.identity = fingerprint({**recipe.to_json(), "origin": origin}, tokens, teacher)
        if recipe.precision is Precision.BF16:
            # A copy: what the caller measures against is the teacher as it was.
            teacher = copy.deepcopy(teacher).to(torch.bfloat16)
        self.teacher = teacher.to(self.accelerator.device).eval().requires_grad_(False)
        if recipe.gradient_checkpointing:
            recompute_activations(student)
        if sharded:
            device = self.accelerator.device
            shard(student.to(device), device, self.accelerator.num_processes)
        groups = parameter_groups(student, recipe)
        for group in groups:
            group["lr"] = recipe.learning_rate * group["factor"]
        optimizer = torch.optim.AdamW(
            groups,
            betas=(recipe.beta1, recipe.beta2),
            eps=recipe.epsilon,
            weight_decay=0.0,
            fused=True,
        )
        # What is sharded is distributed already.
        self.student = student if sharded else self.accelerator.prepare(student)
        self.optimizer = self.accelerator.prepare(optimizer)
        self._plain_optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        model = self.accelerator.unwrap_model(self.student)
        self.parameters: dict[str, nn.Parameter] = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @property
    def model(self) -> PreTrainedModel:
        """The student without what distributes it."""
        return self.accelerator.unwrap_model(self.student)

    def state(self) -> dict[str, Tensor]:
        """Return the student's tensors, whole, by name; every process must ask."""
        tensors = self.model.state_dict(keep_vars=True)
        # A tensor with two names, a tied head's, stays one.
        gathered = {id(tensor): whole(tensor.detach()) for tensor in tensors.values()}
        return {name: gathered[id(tensor)] for name, tensor in tensors.items()}

    def train(self, report: Report = lambda row: None, *, steps: int | None = None) -> int:
        """Run to the recipe's last step, or to `steps`, and return the steps done.

        Raises
        ------
        TernError
            If the loss or its gradient stops being finite; the last checkpoint stays.
        """
        done = self._resume()
        log = TrainingLog(self.folder / LOG, done) if self.accelerator.is_main_process else None
        last = min(self.recipe.steps, steps if steps is not None else self.recipe.steps)
        try:
            for step in range(done, last):
                row = self._step(step)
                if log is not None:
                    log.add(row)
                    report(row)
                if (step + 1) % self.checkpoint_every == 0 or step + 1 == last:
                    self._save(step + 1)
            if log is not None:
                log.picture(self.folder / PICTURE, f"{self.recipe.method}: loss while training")
        finally:
            if log is not None:
                log.close()
        return max(done, last)

    def _check_shares(self) -> None:
        """Refuse a batch that does not divide among processes and parts."""
        shares = self.accelerator.num_processes * self.recipe.accumulation
        if self.recipe.batch % shares:
            raise TernError(
                f"batch must be a multiple of processes times accumulation "
                f"({self.accelerator.num_processes} x {self.recipe.accumulation}), "
                f"not {self.recipe.batch}"
            )

    def _resume(self) -> int:
        folder = self.folder / CHECKPOINT
        if self.accelerator.is_main_process:
            remove_remains(folder)
        if not has_checkpoint(folder):
            return 0
        return load_checkpoint(
            folder, self.parameters, self._plain_optimizer, identity=self.identity
        )

    def _save(self, step: int) -> None:
        # A weight that is not finite need not show in the loss: its group's trits are all 0 then.
        if not all(bool(whole(each).isfinite().all()) for each in self.parameters.values()):
            self._stop(step - 1)
        save_checkpoint(
            self.folder / CHECKPOINT,
            self.parameters,
            self._plain_optimizer,
            step=step,
            identity=self.identity,
            writes=self.accelerator.is_main_process,
        )
        self.accelerator.wait_for_everyone()

    def _step(self, step: int) -> dict[str, float]:
        """Do one step and return its row of the log."""
        start = time.perf_counter()
        rate = self.recipe.learning_rate * self.recipe.rate(step)
        for group in self._plain_optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        sums = self._backward(self._share(step))
        norm = whole(
            self.accelerator.clip_grad_norm_(
                list(self.parameters.values()), self.recipe.clip_norm or math.inf
            )
        )
        losses = {
            name: self._mean(value) for name, value in {"total": sums.total, **sums.parts}.items()
        }
        if not (math.isfinite(losses["total"]) and math.isfinite(float(norm))):
            self._stop(step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        seconds = time.perf_counter() - start
        return {
            "step": step + 1,
            "tokens": (step + 1) * self.recipe.tokens_per_step,
            **dict.fromkeys(("kl", "features", "label", "dad"), 0.0),
            **losses,
            "learning_rate": rate,
            "gradient_norm": float(norm),
            "tokens_per_s": self.recipe.tokens_per_step / seconds,
        }

    def _share(self, step: int) -> list[Tensor]:
        """Return this process's windows of a step, cut for accumulation."""
        windows = self.batches.at(step).chunk(self.accelerator.num_processes)
        share = windows[self.accelerator.process_index].to(self.accelerator.device)
        return list(share.chunk(self.recipe.accumulation))

    def _backward(self, parts: list[Tensor]) -> _Sums:
        sums = _Sums(torch.zeros((), device=self.accelerator.device), {})
        for place, tokens in enumerate(parts):
            last = place + 1 == len(parts)
            # Gradients travel between processes once a step, with its last part.
            with self.accelerator.no_sync(self.student) if not last else contextlib.nullcontext():
                total, losses = self._losses(tokens)
                self.accelerator.backward(total / len(parts))
            sums.total = sums.total + total.detach() / len(parts)
            for name, value in losses.items():
                sums.parts[name] = sums.parts.get(name, 0) + value / len(parts)
        return sums

    def _losses(self, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        hidden = self.recipe.losses.compares_features
        options = {"output_hidden_states": hidden, "use_cache": False}
        with torch.no_grad():
            teacher = self.teacher(input_ids=tokens, **options)
        # Not the accelerator's own: its setting holds for the whole process, and its wrapper stays.
        device, half = self.accelerator.device.type, self.recipe.precision is Precision.BF16
        with torch.autocast(device, torch.bfloat16, enabled=half):
            student = self.student(input_ids=tokens, **options)
        return loss_parts(self.recipe.losses, student, teacher, tokens)

    def _mean(self, value: Tensor) -> float:
        """Return a loss's mean over processes."""
        return float(self.accelerator.reduce(value.float(), reduction="mean"))

    def _stop(self, step: int) -> None:
        """Raise for a loss that is not finite, with the first layer at fault."""
        tokens = self.batches.at(step)[:1].to(self.accelerator.device)
        where = first_nonfinite(self.model, tokens)
        kept = self.folder / CHECKPOINT
        saved = (
            f"the checkpoint in {kept} is whole" if has_checkpoint(kept) else "none was saved yet"
        )
        raise TernError(
            f"loss, gradient and weights must be finite, not so at step {step + 1} ({where}); "
            f"{saved}; a lower learning rate may help"
        )
