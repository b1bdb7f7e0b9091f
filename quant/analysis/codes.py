"""What the trits of a prepared model are, how deep its dead zone is, and how codes flow.

The dead zone is the weights of code 0: a small step of training moves only those near a threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from quant.analysis.models import QuantizedLayer
from quant.groups import expand_groups, join_groups, split_groups
from quant.models.linears import without_block
from quant.progress import Progress, silent
from quant.ternary import THRESHOLD_FACTOR, TernaryFit, threshold
from tern_hw.errors import TernError

__all__ = [
    "CodesReport",
    "CodesRow",
    "FlowRow",
    "code_flow",
    "codes_of",
    "entropy_bits",
    "flow_between",
    "layer_codes",
    "threshold_distance",
]

#: Distance from a threshold, in units of alpha, below which a weight counts as near it.
NEAR: Final = 0.1
#: Bins of the distances' histogram, in units of alpha; what lies beyond is in the last.
BIN: Final = 0.02
BINS: Final = 50


@dataclass(frozen=True)
class CodesRow:
    """The codes of one kind of layer."""

    kind: str
    weights: int
    #: Shares of -1, 0 and +1.
    shares: tuple[float, float, float]
    #: Entropy of those shares, bits a weight (1.585 at most).
    entropy_bits: float
    #: Stored bits a weight, five trits a byte, scales and shifts counted.
    bits_per_weight: float
    #: Share of groups whose codes are all 0.
    empty_groups: float
    #: Mean distance of a dead weight to the nearer threshold, in units of alpha; None where no
    #: threshold on the weight explains the codes.
    dead_distance: float | None
    #: Share of the dead weights that are nearer than `NEAR`.
    dead_near: float | None
    #: Share of all weights that are nearer than `NEAR`, on either side of a threshold.
    near: float | None


@dataclass(frozen=True)
class FlowRow:
    """How the codes of one kind of layer changed between two folders."""

    kind: str
    #: Share of all weights that went from code i - 1 (row) to code j - 1 (column); sums to 1.
    matrix: list[list[float]]
    #: Share whose code changed.
    changed: float
    #: Share that changed from -1 to +1 or back.
    sign_changed: float
    #: Share that went to 0, less the share that left it.
    net_to_zero: float


@dataclass(frozen=True)
class CodesReport:
    """The codes of a prepared folder, by kind of layer, "all" last."""

    label: str
    method: str
    rows: list[CodesRow]
    #: Share of the dead weights per bin of `BIN` alpha of distance; empty where there is none.
    dead_histogram: list[float]


@dataclass
class _Sums:
    """What adds up over layers."""

    counts: Tensor
    bits: float = 0.0
    groups: int = 0
    empty: int = 0
    #: Weights whose distance is known, and of these near ones.
    measured: int = 0
    near: int = 0
    dead: int = 0
    dead_near: int = 0
    dead_distance: float = 0.0

    def add(self, other: "_Sums") -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def layer_codes(layer: QuantizedLayer) -> TernaryFit:
    """Return a layer's trits, scales and shifts.

    Raises
    ------
    TernError
        If its method is not ternary.
    """
    if not layer.quantizer.ternary:
        kind = type(layer.quantizer).__name__.removesuffix("Quantizer").lower()
        raise TernError(f"{layer.name} must have ternary codes, not those of {kind}")
    return layer.quantizer.fit(layer.latent)


def entropy_bits(shares: Sequence[float]) -> float:
    """Return ``-sum p * log2 p``, bits."""
    return -sum(share * math.log2(share) for share in shares if share > 0) + 0.0


def threshold_distance(layer: QuantizedLayer, fit: TernaryFit) -> Tensor | None:
    """Return each weight's distance to the nearer threshold in units of its alpha, ``[N, K]``.

    Returns
    -------
    Tensor or None
        Infinite where alpha is 0. None where neither rule that the methods use (0.7 mean|w| of
        the group about 0 or its mean; half way between the levels) gives the codes that are
        there: then no threshold on the weight decides, as with error feedback.
    """
    weight = layer.latent.float()
    columns, size = weight.shape[1], fit.group_size
    alpha = expand_groups(fit.scale.float(), columns, size)
    config: Any = getattr(layer.quantizer, "config", None)
    middle, half = _mean_rule(weight, config, size)
    candidates = [(middle, half), (expand_groups(fit.shift.float(), columns, size), alpha / 2)]
    for middle, half in candidates:
        offset = weight - middle
        codes = (offset > half).to(torch.int8) - (offset < -half).to(torch.int8)
        # Ties and the last bit of a threshold may differ; a level rounded to 0 has no code.
        if float((codes == fit.trits)[alpha > 0].double().mean().nan_to_num(1.0)) > 0.9999:
            distance = (offset.abs() - half).abs() / alpha
            return torch.where(alpha > 0, distance, torch.inf)
    return None


def codes_of(
    label: str, method: str, layers: Sequence[QuantizedLayer], progress: Progress = silent
) -> tuple[CodesReport, dict[str, Tensor]]:
    """Count the codes of a prepared model's layers.

    Returns
    -------
    report : CodesReport
    trits : dict of str to int8 [N, K]
        By layer, for `code_flow`.
    """
    kinds: dict[str, _Sums] = {}
    histogram = torch.zeros(BINS, dtype=torch.float64)
    trits: dict[str, Tensor] = {}
    with progress("counting codes", len(layers)) as advance:
        for layer in layers:
            fit = layer_codes(layer)
            trits[layer.name] = fit.trits
            distance = threshold_distance(layer, fit)
            sums = _layer_sums(layer, fit, distance)
            kinds.setdefault(without_block(layer.name), _Sums(torch.zeros(3))).add(sums)
            histogram += _histogram(fit, distance)
            advance(1)
    total = _Sums(torch.zeros(3))
    for sums in kinds.values():
        total.add(sums)
    rows = [_row(kind, sums) for kind, sums in {**kinds, "all": total}.items()]
    shares = (histogram / histogram.sum()).tolist() if histogram.sum() else []
    return CodesReport(label, method, rows, shares), trits


def flow_between(before: Tensor, after: Tensor) -> Tensor:
    """Count transitions of trits: int64 [3, 3], from code i - 1 (row) to code j - 1 (column)."""
    index = (before.long() + 1) * 3 + after.long() + 1
    return torch.bincount(index.flatten(), minlength=9).reshape(3, 3)


def code_flow(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[FlowRow]:
    """Return how codes changed between two prepared models, by kind of layer, "all" last.

    Raises
    ------
    TernError
        If the two do not have the same layers in the same shapes.
    """
    _check_same(before, after)
    kinds: dict[str, Tensor] = {}
    for name in before:
        counts = flow_between(before[name], after[name])
        kinds[without_block(name)] = (
            kinds.get(without_block(name), torch.zeros_like(counts)) + counts
        )
    kinds["all"] = torch.stack(list(kinds.values())).sum(0)
    return [_flow_row(kind, counts) for kind, counts in kinds.items()]


def _mean_rule(weight: Tensor, config: Any, size: Any) -> tuple[Tensor, Tensor]:
    """Return the middle and half width of the dead zone by DLT's and TWN's threshold, [N, K]."""
    factor = getattr(config, "factor", THRESHOLD_FACTOR)
    pieces = split_groups(weight, size)
    means = [groups.mean(-1, keepdim=True).expand_as(groups) for groups in pieces]
    if not getattr(config, "center", False):
        means = [torch.zeros_like(mean) for mean in means]
    halves = [
        threshold(groups - mean, factor).unsqueeze(-1).expand_as(groups)
        for groups, mean in zip(pieces, means, strict=True)
    ]
    return join_groups(means), join_groups(halves)


def _layer_sums(layer: QuantizedLayer, fit: TernaryFit, distance: Tensor | None) -> _Sums:
    pieces = split_groups(fit.trits, fit.group_size)
    sums = _Sums(
        counts=torch.bincount(fit.trits.flatten().long() + 1, minlength=3).double(),
        bits=layer.quantizer.bits_per_weight(layer.latent) * fit.trits.numel(),
        groups=fit.scale.numel(),
        empty=sum(int((~groups.bool().any(-1)).sum()) for groups in pieces),
    )
    if distance is not None:
        known = distance.isfinite()
        dead = distance[known & (fit.trits == 0)].double()
        sums.measured, sums.near = int(known.sum()), int((distance < NEAR).sum())
        sums.dead, sums.dead_near = len(dead), int((dead < NEAR).sum())
        sums.dead_distance = float(dead.sum())
    return sums


def _histogram(fit: TernaryFit, distance: Tensor | None) -> Tensor:
    """Count the dead weights by distance, [BINS]."""
    if distance is None:
        return torch.zeros(BINS, dtype=torch.float64)
    dead = distance[distance.isfinite() & (fit.trits == 0)]
    return torch.bincount((dead / BIN).long().clamp(max=BINS - 1), minlength=BINS).double()


def _row(kind: str, sums: _Sums) -> CodesRow:
    weights = float(sums.counts.sum())
    low, zero, high = (sums.counts / weights).tolist()
    return CodesRow(
        kind=kind,
        weights=int(weights),
        shares=(low, zero, high),
        entropy_bits=entropy_bits((low, zero, high)),
        bits_per_weight=sums.bits / weights,
        empty_groups=sums.empty / sums.groups,
        dead_distance=sums.dead_distance / sums.dead if sums.dead else None,
        dead_near=sums.dead_near / sums.dead if sums.dead else None,
        near=sums.near / sums.measured if sums.measured else None,
    )


def _flow_row(kind: str, counts: Tensor) -> FlowRow:
    share = counts.double() / counts.sum()
    return FlowRow(
        kind=kind,
        matrix=share.tolist(),
        changed=float(1 - share.trace()),
        sign_changed=float(share[0, 2] + share[2, 0]),
        net_to_zero=float(share[0, 1] + share[2, 1] - share[1, 0] - share[1, 2]),
    )


def _check_same(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    for name in [*before, *(name for name in after if name not in before)]:
        shapes = [
            list(trits[name].shape) if name in trits else "no such layer"
            for trits in (before, after)
        ]
        if shapes[0] != shapes[1]:
            raise TernError(
                f"folders must be of one model, but {name} is {shapes[0]} in the one and "
                f"{shapes[1]} in the other"
            )
