"""Outlier channels of a model's features, and what MSE and OFF pull at on them.

MSE is ``mean (f - t)^2`` and OFF ``1 - cos(f, t)`` per token, with f the student's and t the
teacher's feature (TernaryLLM, arXiv:2406.07177, which argues that outliers rule the former).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from tern_hw.errors import TernError

__all__ = [
    "BlockOutliers",
    "LossPull",
    "StudentOutliers",
    "channel_outliers",
    "mse_gradient",
    "off_gradient",
    "outlier_channels",
    "student_outliers",
    "top_count",
]

#: Share of channels, those of the largest root mean square in the teacher, that count as outliers.
TOP_SHARE: Final = 0.01
#: Root mean square over the median channel's, from which a channel stands out by itself.
STANDS_OUT: Final = 6.0


@dataclass(frozen=True)
class BlockOutliers:
    """Outliers of a teacher's features after one block."""

    block: int
    #: Largest |x| over the median channel's root mean square; the same without first tokens.
    peak: float
    peak_later: float
    #: Channels whose root mean square is `STANDS_OUT` times the median's or more.
    standing_out: int
    #: Share of the features' squared norm on the top channels.
    energy: float


@dataclass(frozen=True)
class LossPull:
    """Where one loss pulls, after one block."""

    #: Share of the gradient's squared norm on the top channels: mean over tokens of each token's.
    share: float
    #: The same of all tokens' gradients together (for MSE also the share of the loss itself).
    pooled: float
    #: Standard deviation of `pooled` from window to window.
    spread: float
    #: How often the summed gradient of a top channel changes its sign from a window to the next.
    sign_changes: float
    #: Share of all the squared gradient that the 1 % of tokens with the largest carry.
    top_tokens: float


@dataclass(frozen=True)
class StudentOutliers:
    """The two losses between one student and the teacher, block by block."""

    label: str
    #: Mean of 1 - cos, per block.
    off_loss: list[float]
    mse: list[LossPull]
    off: list[LossPull]


def top_count(channels: int, share: float = TOP_SHARE) -> int:
    """Return how many channels (or tokens) are the top share: at least one."""
    return max(1, math.ceil(share * channels))


def outlier_channels(features: Tensor, share: float = TOP_SHARE) -> Tensor:
    """Return the channels of the largest root mean square, int64 [top].

    Parameters
    ----------
    features : Tensor, [..., D]
        The teacher's.
    share : float
        In (0, 1].
    """
    power = features.double().flatten(0, -2).square().mean(0)
    return power.topk(top_count(features.shape[-1], share)).indices


def channel_outliers(block: int, features: Tensor, share: float = TOP_SHARE) -> BlockOutliers:
    """Describe a teacher's features ``[windows, tokens, D]`` after one block."""
    exact = features.double()
    rms = exact.flatten(0, -2).square().mean(0).sqrt()
    median = float(rms.median()) or math.inf
    top = outlier_channels(features, share)
    return BlockOutliers(
        block=block,
        peak=float(exact.abs().max()) / median,
        peak_later=float(exact[:, 1:].abs().max()) / median,
        standing_out=int((rms >= STANDS_OUT * median).sum()),
        energy=_on(exact.square(), top),
    )


def mse_gradient(student: Tensor, teacher: Tensor) -> Tensor:
    """Return d/df of ``sum_d (f - t)^2 / D`` of each token: ``2 (f - t) / D``, [..., D]."""
    return 2 * (student - teacher) / student.shape[-1]


def off_gradient(student: Tensor, teacher: Tensor) -> Tensor:
    """Return d/df of ``1 - cos(f, t)`` of each token, [..., D].

    Notes
    -----
    With unit vectors ``u = f / |f|`` and ``v = t / |t|``: ``(cos(f, t) * u - v) / |f|``. It stands
    at right angles to f, has the length ``sin(f, t) / |f|``, and does not see t's length.
    """
    length = student.norm(dim=-1, keepdim=True)
    u, v = student / length, teacher / teacher.norm(dim=-1, keepdim=True)
    return ((u * v).sum(-1, keepdim=True) * u - v) / length


def student_outliers(
    label: str, students: Sequence[Tensor], teachers: Sequence[Tensor], share: float = TOP_SHARE
) -> StudentOutliers:
    """Compare the losses' gradients between a student and its teacher.

    Parameters
    ----------
    label : str
        The student's.
    students, teachers : sequences of Tensor, [windows, tokens, D]
        One a block.
    share : float
        Share of channels that are the top ones, chosen by the teacher.
    """
    off_loss, mse, off = [], [], []
    for student, teacher in zip(students, teachers, strict=True):
        f, t = student.double(), teacher.double()
        top = outlier_channels(teacher, share)
        _check_not_zero(f, label)
        _check_not_zero(t, "the teacher")
        off_loss.append(float(1 - torch.cosine_similarity(f, t, dim=-1, eps=0).mean()))
        mse.append(_pull(mse_gradient(f, t), top))
        off.append(_pull(off_gradient(f, t), top))
    return StudentOutliers(label, off_loss, mse, off)


def _check_not_zero(features: Tensor, label: str) -> None:
    if bool((features == 0).all(-1).any()):
        raise TernError(f"features of {label} must have a direction, not be all 0 for a token")


def _pull(gradient: Tensor, top: Tensor) -> LossPull:
    """Describe a loss's gradient ``[windows, tokens, D]`` with respect to the top channels."""
    squared = gradient.square()
    tokens = squared.sum(-1)
    # A token whose gradient is 0 pulls nowhere.
    moving = tokens > 0
    shares = squared[..., top].sum(-1)[moving] / tokens[moving]
    windows = torch.tensor([_on(window, top) for window in squared])
    signs = gradient.sum(1)[:, top].sign()
    largest = tokens.flatten().topk(top_count(tokens.numel())).values.sum()
    return LossPull(
        share=float(shares.mean()) if len(shares) else 0.0,
        pooled=_on(squared, top),
        spread=float(windows.std(correction=0)),
        sign_changes=float((signs[1:] != signs[:-1]).double().mean()) if len(signs) > 1 else 0.0,
        top_tokens=float(largest / tokens.sum()) if bool(moving.any()) else 0.0,
    )


def _on(squared: Tensor, top: Tensor) -> float:
    """Return the part of all squares that lies on the top channels; 0 where there is none."""
    whole = float(squared.sum())
    return float(squared[..., top].sum()) / whole if whole else 0.0
