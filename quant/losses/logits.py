"""Losses on logits: divergence from the teacher, DB-LLM's weighting of it, and the labels.

Logits are ``[batch, tokens, V]``, V the vocabulary; each loss is a mean over tokens, in nats.
"""

import math
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["DAD_EXPONENT", "deviation_aware", "entropy_weights", "label_loss", "teacher_divergence"]

#: Exponent of the relative entropy in DAD's weights. Ours: the paper's own was not to be had.
DAD_EXPONENT: Final = 1.0


def label_loss(student: Tensor, tokens: Tensor) -> Tensor:
    """Return the cross-entropy of each next token, tokens ``[batch, tokens]``."""
    return functional.cross_entropy(student[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())


def teacher_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ``KL(teacher || student)``, mean over tokens (Hinton et al., arXiv:1503.02531)."""
    return token_divergence(student, teacher).mean()


def deviation_aware(student: Tensor, teacher: Tensor, exponent: float = DAD_EXPONENT) -> Tensor:
    """Deviation-aware distillation: `KL(teacher || student)`, uncertain tokens weighing more.

    Notes
    -----
    DB-LLM (arXiv:2402.11960) weighs the distillation loss by the entropy of the predictions, since
    low-bit models err most where the teacher is of two minds. The exact weight was not to be had;
    this is ours: ``w = (H(teacher) / log V)^exponent``, a token's own, so that no cut of the
    batch changes it. KL and cross-entropy with the teacher differ by a constant.
    """
    weights = entropy_weights(teacher, exponent)
    return (weights * token_divergence(student, teacher)).mean()


def entropy_weights(teacher: Tensor, exponent: float) -> Tensor:
    """Return DAD's weight of each token, ``[batch, tokens]``, from 0 (certain) to 1."""
    logs = functional.log_softmax(teacher.float(), dim=-1)
    entropy = -(logs.exp() * logs).sum(-1)
    return (entropy / math.log(teacher.shape[-1])).clamp(min=0).pow(exponent)


class _Divergence(torch.autograd.Function):
    """KL with its closed gradient, `softmax(student) - softmax(teacher)`.

    The generic graph keeps four tensors of the logits' size until the backward pass; this one.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        student_logs = functional.log_softmax(student.float(), dim=-1)
        teacher_logs = functional.log_softmax(teacher.float(), dim=-1)
        teacher_share = teacher_logs.exp()
        divergence = (teacher_share * teacher_logs.sub_(student_logs)).sum(-1)
        ctx.save_for_backward(student_logs.exp_().sub_(teacher_share).to(student.dtype))
        return divergence

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return difference * gradient.unsqueeze(-1).to(difference.dtype), None


def token_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ``KL(teacher || student)`` of each token, ``[batch, tokens]``."""
    return _Divergence.apply(student, teacher)
