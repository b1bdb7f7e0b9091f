"""How lopsided the groups of a model's weights are, and what a shift gains on them.

Per group: mean over standard deviation, skewness, and outliers on one side. Per kind of layer: the
weight error of symmetric ternary and of DLT, each with and without refitted codes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from quant.analysis.fits import ErrorRow, add_sums, error_row, error_sums, normal_row
from quant.groups import split_groups
from quant.methods.base import check_finite
from quant.models.linears import block_linears, without_block
from quant.progress import Progress, silent
from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize

__all__ = [
    "AsymmetryReport",
    "GroupSummary",
    "asymmetry",
    "chance_of_one_side",
    "group_moments",
]

#: Distance from the group's mean, in standard deviations, from which a weight is an outlier.
OUTLIER_SIGMA: Final = 4.0
#: Two-sided 5 % point of the normal distribution.
FIVE_PERCENT: Final = 1.959964


@dataclass(frozen=True)
class GroupSummary:
    """How lopsided the groups of one kind of layer are."""

    kind: str
    groups: int
    #: Median and 95th percentile of |mean| / standard deviation.
    mean_over_std: tuple[float, float]
    #: Share of groups whose mean lies further from 0 than chance explains (5 % do by chance).
    shifted: float
    #: Median and 95th percentile of |skewness|.
    skewness: tuple[float, float]
    #: Share of groups more skewed than chance explains (5 % are by chance).
    skewed: float
    #: Shares of groups with an outlier on one side only, and on both.
    one_sided: float
    two_sided: float
    #: Mean distance of the furthest weight of a one-sided group, in standard deviations; 0: none.
    one_sided_sigma: float


@dataclass(frozen=True)
class AsymmetryReport:
    """The answer over a model's block linears."""

    group_size: GroupSize
    #: Weights of the largest group: what chance is reckoned for.
    inputs: int
    sigma: float
    #: Share of one-sided groups among independent normal weights.
    one_sided_by_chance: float
    #: Per kind of layer, "all" last.
    groups: list[GroupSummary]
    errors: list[ErrorRow]
    #: The errors on independent normal weights: a shift gains on them too, being fitted to noise.
    normal: ErrorRow


def group_moments(groups: Tensor) -> Tensor:
    """Return what describes a group's balance.

    Parameters
    ----------
    groups : Tensor, [..., G]

    Returns
    -------
    Tensor, [..., 4], float64
        mean / std, skewness ``m3 / m2^1.5``, and the furthest weight above and below the mean in
        standard deviations. The standard deviation is the population's, m2 its square; all four
        are 0 where it is 0.
    """
    exact = groups.double()
    mean = exact.mean(-1, keepdim=True)
    centred = exact - mean
    std = centred.square().mean(-1).sqrt()
    # Weights that are all equal leave a rounding error of the mean, not a spread.
    safe = torch.where(std > 1e-9 * exact.abs().amax(-1), std, torch.inf)
    skewness = centred.pow(3).mean(-1) / safe.pow(3)
    above, below = centred.amax(-1) / safe, -centred.amin(-1) / safe
    return torch.stack([mean.squeeze(-1) / safe, skewness, above, below], dim=-1)


def chance_of_one_side(group_size: int, sigma: float = OUTLIER_SIGMA) -> float:
    """Return how often independent normal weights have outliers on one side only.

    With p the normal tail beyond sigma a side: ``2 * ((1 - p)^G - (1 - 2p)^G)``, none below but not
    none at all, and the same the other way. (Sigma here is the distribution's; a group's own
    standard deviation, which an outlier widens, makes it a little rarer.)
    """
    tail = math.erfc(sigma / math.sqrt(2)) / 2
    return 2 * ((1 - tail) ** group_size - (1 - 2 * tail) ** group_size)


def asymmetry(
    model: nn.Module,
    linears: Mapping[str, nn.Linear] | None = None,
    *,
    group_size: GroupSize = 128,
    sigma: float = OUTLIER_SIGMA,
    progress: Progress = silent,
) -> tuple[AsymmetryReport, Tensor]:
    """Measure every group of a model's block linears.

    Parameters
    ----------
    model : nn.Module
    linears : mapping of str to nn.Linear, optional
        Only these; all block linears by default.
    group_size : int or "row"
        Inputs per group; a short last group is measured as it is.
    sigma : float
        What an outlier is, in standard deviations from the group's mean.
    progress : Progress
        Counts the layers.

    Returns
    -------
    report : AsymmetryReport
    moments : Tensor, [groups, 5]
        `group_moments` and the size of all full groups; short ones are left to the errors.
    """
    if not 0 < sigma < math.inf:
        raise TernError(f"--sigma must be a positive number, not {sigma}")
    linears = block_linears(model) if linears is None else linears
    moments: dict[str, list[Tensor]] = {}
    sums: dict[str, dict[str, float]] = {}
    size = 0
    with progress("measuring groups", len(linears)) as advance:
        for name, linear in linears.items():
            weight = linear.weight.detach().float()
            check_finite(weight, f"{name}.weight")
            full = split_groups(weight, group_size)[0]
            size = max(size, full.shape[-1])
            moments.setdefault(without_block(name), []).append(_moments(full))
            add_sums(sums.setdefault(without_block(name), {}), error_sums(weight, group_size))
            advance(1)
    every = torch.cat([part for parts in moments.values() for part in parts])
    total: dict[str, float] = {}
    for part in sums.values():
        add_sums(total, part)
    tables = {**{kind: torch.cat(parts) for kind, parts in moments.items()}, "all": every}
    report = AsymmetryReport(
        group_size=group_size,
        inputs=size,
        sigma=sigma,
        one_sided_by_chance=chance_of_one_side(size, sigma),
        groups=[_summary(kind, table, sigma) for kind, table in tables.items()],
        errors=[error_row(kind, part) for kind, part in {**sums, "all": total}.items()],
        normal=normal_row(size),
    )
    return report, every


def _moments(groups: Tensor) -> Tensor:
    """Return the moments of groups ``[N, groups, G]`` and their size, [N * groups, 5]."""
    moments = group_moments(groups).flatten(0, -2)
    return torch.cat([moments, torch.full_like(moments[:, :1], groups.shape[-1])], dim=1)


def _summary(kind: str, moments: Tensor, sigma: float) -> GroupSummary:
    """Summarise groups ``[groups, 5]``."""
    ratio, skewness, size = moments[:, 0].abs(), moments[:, 1].abs(), moments[:, 4]
    above, below = moments[:, 2] > sigma, moments[:, 3] > sigma
    one = above ^ below
    furthest = moments[:, 2:4].amax(-1)[one]
    return GroupSummary(
        kind=kind,
        groups=len(moments),
        mean_over_std=_median_and_95(ratio),
        # A mean of G independent weights strays by std / sqrt(G), a skewness by sqrt(6 / G).
        shifted=_share(ratio > FIVE_PERCENT / size.sqrt()),
        skewness=_median_and_95(skewness),
        skewed=_share(skewness > FIVE_PERCENT * (6 / size).sqrt()),
        one_sided=_share(one),
        two_sided=_share(above & below),
        one_sided_sigma=float(furthest.mean()) if len(furthest) else 0.0,
    )


def _share(which: Tensor) -> float:
    return float(which.double().mean())


def _median_and_95(values: Tensor) -> tuple[float, float]:
    # torch.quantile refuses more than 2^24 values.
    ordered = values.sort().values
    last = len(ordered) - 1
    return float(ordered[round(0.5 * last)]), float(ordered[round(0.95 * last)])
