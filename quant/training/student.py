"""The student: the teacher's copy, its layers quantised, with the parameters that move."""

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from quant.methods import named_method, quantized_linears
from quant.methods.base import latent_weight
from quant.models.linears import block_linears, select_linears
from quant.progress import Progress, silent
from quant.training.recipe import Precision, Recipe, Trained
from tern_hw.errors import TernError

__all__ = ["make_student", "parameter_groups", "recompute_activations"]


def make_student(
    teacher: PreTrainedModel,
    recipe: Recipe,
    *,
    progress: Progress = silent,
) -> PreTrainedModel:
    """Return a float32 copy of the teacher, prepared by the recipe's method.

    What does not move is the teacher's own tensor where its type allows, not a copy of it.

    Parameters
    ----------
    teacher : PreTrainedModel
        Not changed.
    recipe : Recipe
    progress : Progress
        Counts the layers.

    Raises
    ------
    TernError
        If the method cannot be trained, or cannot quantise this model.
    """
    method = named_method(recipe.method)
    if not method.trainable:
        raise TernError(f"method must be one that trains, not {recipe.method}")
    shared = recipe.precision is Precision.FP32 and teacher.dtype == torch.float32
    memo = {id(parameter): parameter for parameter in _still(teacher, recipe)} if shared else {}
    student = copy.deepcopy(teacher, memo)
    if not shared:
        student.float()
    # No dropout: the teacher's answers are what the student is to give.
    student.eval()
    method.prepare(student, recipe.options, progress=progress)
    moving = {
        id(parameter)
        for group in parameter_groups(student, recipe)
        for parameter in group["params"]
    }
    for parameter in student.parameters():
        parameter.requires_grad_(id(parameter) in moving)
    return student


def recompute_activations(student: PreTrainedModel) -> None:
    """Let blocks keep their inputs only, and compute the rest again in the backward pass.

    transformers does so in training mode alone. A block is put in that mode without what is inside
    it, and its own dropout set to 0: recomputing changes no bit.
    """
    student.activation_checkpointing_enable({"use_reentrant": False})
    for module in student.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0


def parameter_groups(student: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return what moves, as AdamW takes it: weights, scales and shifts, the rest."""
    layers = list(quantized_linears(student))
    weights = [latent_weight(linear) for _, linear, _ in layers]
    scales = [parameter for _, _, quantizer in layers for parameter in quantizer.parameters()]
    taken = {id(parameter) for parameter in (*weights, *scales)}
    rest = [
        parameter for parameter in _others(student, recipe.trained) if id(parameter) not in taken
    ]
    groups = [(weights, 1.0), (scales, recipe.scale_rate), (rest, 1.0)]
    return [{"params": params, "factor": factor} for params, factor in groups if params]


def _others(model: nn.Module, trained: Trained) -> list[nn.Parameter]:
    """Return the parameters outside quantised weights that `trained` names."""
    if trained is Trained.LINEARS:
        return []
    tables = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding) or module is model.get_output_embeddings()
    }
    return [
        parameter
        for parameter in model.parameters()
        if trained is Trained.ALL or (id(parameter) not in tables and parameter.ndim == 1)
    ]


def _still(teacher: PreTrainedModel, recipe: Recipe) -> list[nn.Parameter]:
    """Return the teacher's parameters that the student leaves as they are."""
    linears = select_linears(block_linears(teacher), recipe.options.layers)
    moving = {id(linear.weight) for linear in linears.values()}
    moving |= {id(parameter) for parameter in _others(teacher, recipe.trained)}
    return [parameter for parameter in teacher.parameters() if id(parameter) not in moving]
