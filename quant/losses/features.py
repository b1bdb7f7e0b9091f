"""Losses between the student's and the teacher's features: OFF, and what it is argued against.

All take features ``[..., D]`` (D the hidden size) and return one number, the mean over tokens.
A feature is the output of a block, the last one's after the model's final norm, as transformers
gives `hidden_states`.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from torch import Tensor
from torch.nn import functional

__all__ = ["FeatureLoss", "Features", "clipped_mse", "feature_loss", "huber", "mse", "off"]

#: Standard deviations of a teacher's token at which `clipped_mse` cuts outliers.
CLIP_SIGMAS: Final = 3.0
#: Where Huber's loss turns from square to straight, in standard deviations of the teacher's token.
HUBER_SIGMAS: Final = 1.0


class FeatureLoss(StrEnum):
    """How student and teacher features are compared."""

    OFF = "off"
    MSE = "mse"
    CLIPPED_MSE = "clipped_mse"
    HUBER = "huber"
    NONE = "none"


class Features(StrEnum):
    """Which blocks' outputs are compared; the paper's public text does not say."""

    #: Every block's.
    ALL = "all"
    #: The last block's only, after the final norm.
    LAST = "last"


def off(student: Tensor, teacher: Tensor) -> Tensor:
    """Outlier-friendly feature distillation: ``1 - cos(f, t)`` per token.

    Notes
    -----
    TernaryLLM, arXiv:2406.07177. A token's scale cancels, so a channel with outliers counts by
    its share of the direction and no more.
    """
    return (1 - functional.cosine_similarity(student.float(), teacher.float(), dim=-1)).mean()


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error over tokens and channels, in units of the teacher's mean square.

    The division makes blocks of different magnitude comparable. It is by the mean square of what is
    compared at once, so accumulation, or more processes, weighs the parts of a batch anew.
    """
    student, teacher = student.float(), teacher.float()
    return (student - teacher).square().mean() / teacher.square().mean()


def clipped_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """`mse` after both features are clipped to 3 standard deviations of the teacher's token."""
    student, teacher = student.float(), teacher.float()
    bound = CLIP_SIGMAS * teacher.std(dim=-1, keepdim=True)
    return mse(student.clamp(-bound, bound), teacher.clamp(-bound, bound))


def huber(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber's loss of the difference in standard deviations of the teacher's token."""
    student, teacher = student.float(), teacher.float()
    sigma = teacher.std(dim=-1, keepdim=True)
    return functional.huber_loss(student / sigma, teacher / sigma, delta=HUBER_SIGMAS)


LOSSES: Final[dict[FeatureLoss, Callable[[Tensor, Tensor], Tensor]]] = {
    FeatureLoss.OFF: off,
    FeatureLoss.MSE: mse,
    FeatureLoss.CLIPPED_MSE: clipped_mse,
    FeatureLoss.HUBER: huber,
}


def feature_loss(
    kind: FeatureLoss, which: Features, student: Sequence[Tensor], teacher: Sequence[Tensor]
) -> Tensor:
    """Return the mean of a loss over the chosen blocks.

    TernaryLLM is understood to take the sum; the mean keeps a weight's meaning from model to model.

    Parameters
    ----------
    kind : FeatureLoss
        Not `NONE`.
    which : Features
    student, teacher : sequence of Tensor, [batch, tokens, D]
        `hidden_states` of transformers: the embedding's output, then each block's.
    """
    pairs = list(zip(student[1:], teacher[1:], strict=True))
    if which is Features.LAST:
        pairs = pairs[-1:]
    losses = [LOSSES[kind](*pair) for pair in pairs]
    return sum(losses[1:], start=losses[0]) / len(losses)
