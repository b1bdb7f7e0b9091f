"""Start training from levels that exist: a training-free method's, or an earlier training's.

A student that begins with levels fitted to activations is ahead of one that begins with levels
fitted to weights by as much as a hundred steps bring.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quant.exports.convert import export_prepared
from quant.methods import method_config, named_method, quantized_linears
from quant.methods.base import latent_weight
from quant.methods.dlt import Codes, DltQuantizer, latent_for
from quant.models.opening import is_artifact
from quant.models.prepared import Prepared, is_prepared, load_prepared, prepared_checksums
from quant.models.tensors import torch_tensor
from quant.progress import Progress, silent
from quant.ternary import TernaryFit
from quant.text.batches import CALIBRATION_WINDOWS
from quant.training.checkpoint import fingerprint
from quant.training.fitting import fitted_copy
from quant.training.recipe import Recipe
from tern_hw.artifact import Artifact, load_artifact
from tern_hw.errors import TernError

__all__ = ["Start", "begin_from", "fit_start", "open_start"]

#: Which windows a calibrated method sees: every run's seed trains from the same start.
CALIBRATION_SEED: Final = 0


@dataclass(frozen=True)
class Start:
    """What a training starts from."""

    path: Path
    content: Artifact | Prepared

    def describe(self) -> dict[str, Any]:
        """Return what a run records of its start: a checksum of the tensors, and its making."""
        if isinstance(self.content, Prepared):
            prepared = self.content
            return {
                "sha256": _digest(prepared_checksums(self.path)),
                "method": prepared.method.name,
                "options": prepared.config.to_json(),
                "training": prepared.training,
            }
        info = self.content.info
        known = ("method", "options", "training")
        made = {key: info.metadata[key] for key in known if key in info.metadata}
        return {"sha256": _digest({k: each.sha256 for k, each in info.tensors.items()}), **made}


def _digest(checksums: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()


def open_start(path: Path) -> Start:
    """Open the folder that a training starts from.

    Raises
    ------
    TernError
        If it is no artifact and no prepared model, or a damaged one.
    """
    if is_prepared(path):
        return Start(path, load_prepared(path))
    if is_artifact(path):
        return Start(path, load_artifact(path))
    raise TernError(
        "start must be a training-free method's name, or the folder of a ternary artifact (as "
        f"quant.export writes it) or of a trained model (as quant.train does), not {path}"
    )


def fit_start(
    folder: Path,
    teacher: PreTrainedModel,
    recipe: Recipe,
    tokens: Tensor,
    *,
    origin: str,
    windows: int = CALIBRATION_WINDOWS,
    progress: Progress = silent,
) -> Start:
    """Return the levels of the training-free method that a recipe starts from.

    Parameters
    ----------
    folder : Path
        Takes the artifact; where it is there already, of the same model, text and options, it is
        opened only.
    teacher : PreTrainedModel
        In float32; not changed.
    recipe : Recipe
        Its `start_from` is a method's name; that method has its defaults, but for group size and
        layers.
    tokens : int64 [T]
        The training text; calibration windows are `recipe.window` long, from all over it.
    origin : str
        What the teacher is, in words.
    windows : int
        How many of them a calibrated method sees.
    progress : Progress

    Raises
    ------
    TernError
        If the method is not ternary, or the folder holds another start.
    """
    method = named_method(recipe.start_from)
    options = {"group_size": recipe.options.group_size, "layers": recipe.options.layers}
    config = method_config(method.name, options)
    if method.trainable or not method.blank(torch.zeros(1, 16), config).ternary:
        raise TernError(f"start must be a training-free ternary method, not {method.name}")
    text = {"window": recipe.window, "windows": windows, "seed": CALIBRATION_SEED}
    shown = {"method": method.name, "options": config.to_json()}
    if method.calibrated:
        shown["calibration"] = text
    identity = fingerprint(shown, tokens, teacher)
    if not is_artifact(folder):
        model = fitted_copy(teacher, method, config, tokens, **text, progress=progress)
        made = {"fitted_to": identity, **shown}
        export_prepared(Prepared(model, method, config, origin, made), folder, progress=progress)
    artifact = load_artifact(folder)
    training = artifact.info.metadata.get("training")
    if not isinstance(training, dict) or training.get("fitted_to") != identity:
        raise TernError(
            f"{folder} must be fitted by {method.name} to this model and text, not to others; "
            "remove it, or give a new --output"
        )
    return Start(folder, artifact)


@torch.no_grad()
def begin_from(student: PreTrainedModel, start: Start, recipe: Recipe) -> None:
    """Give a student the start's levels, to the bit.

    Parameters
    ----------
    student : PreTrainedModel
        Of `quant.training.student.make_student`. From an artifact its latent weights move as far
        as the trits ask; from a prepared model they are that model's.
    start : Start
        Of the same layers in groups of the same size. Where it has other norms or tables than the
        teacher, they must be among what the recipe trains.
    recipe : Recipe
        The student's.

    Raises
    ------
    TernError
        If the student cannot hold what the start has.
    """
    if isinstance(start.content, Prepared):
        prepared = start.content
        if (prepared.method.name, prepared.config) != (recipe.method, recipe.options):
            raise TernError(
                f"start {start.path} must be of the recipe's method and options "
                f"({recipe.method}, {recipe.options.to_json()}), not {prepared.method.name}, "
                f"{prepared.config.to_json()}"
            )
        _take_over(student, prepared.model.state_dict(), start.path)
    else:
        artifact = start.content
        _take_levels(student, artifact)
        others = {name: torch_tensor(artifact.tensor(name)) for name in artifact.tensors}
        _take_over(student, others, start.path)


def _take_over(student: PreTrainedModel, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy tensors into the student; those that do not move must be the teacher's already."""
    own = {
        **dict(student.named_parameters(remove_duplicate=False)),
        **dict(student.named_buffers()),
    }
    for name, tensor in tensors.items():
        if name not in own or own[name].shape != tensor.shape:
            raise TernError(f"start {path} must have tensors of the student's, not {name}")
        target = own[name]
        if torch.equal(target, tensor.to(target)):
            continue
        if not target.requires_grad:
            raise TernError(
                f"start's {name} must be the teacher's, since the recipe does not train it"
            )
        target.copy_(tensor)


def _take_levels(student: PreTrainedModel, artifact: Artifact) -> None:
    layers = list(quantized_linears(student))
    missing = [name for name, _, _ in layers if name not in artifact.layers]
    if missing or len(layers) != len(artifact.layers):
        wrong = f"none named {missing[0]}" if missing else f"{len(artifact.layers)} of them"
        raise TernError(
            f"start {artifact.path} must have the student's {len(layers)} layers, not {wrong}"
        )
    for name, linear, quantizer in layers:
        if not isinstance(quantizer, DltQuantizer) or quantizer.config.codes is not Codes.NEAREST:
            raise TernError(
                "method must be dlt with codes=nearest to start from an artifact's levels, since "
                "by any other rule the weights alone decide the trits"
            )
        latent, fit = latent_weight(linear), TernaryFit.from_matrix(artifact.layer(name))
        if fit.trits.shape != latent.shape or fit.group_size != quantizer.config.group_size:
            raise TernError(
                f"start's layer {name} must have shape {tuple(latent.shape)} and group size "
                f"{quantizer.config.group_size}, not {tuple(fit.trits.shape)} and {fit.group_size}"
            )
        if not quantizer.config.shift and bool(fit.shift.any()):
            raise TernError(f"start's layer {name} must have no shift for a student without shifts")
        quantizer.scale.copy_(fit.scale.float())
        quantizer.shift.copy_(fit.shift.float())
        latent.copy_(latent_for(latent, fit))
