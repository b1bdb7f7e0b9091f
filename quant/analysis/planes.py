"""The two binary planes of FDB: whether the second mends what the first leaves, or repeats it.

``W_q = a1 * b1 + a2 * b2`` (DB-LLM, arXiv:2402.11960). RaBiT (arXiv:2602.05367) judges such a pair
by the correlation of its paths and their residual alignment; here both are taken on the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quant.analysis.models import QuantizedLayer
from quant.groups import expand_groups
from quant.methods.fdb import FdbQuantizer
from quant.methods.straight_through import round_fp16
from quant.models.linears import without_block
from quant.progress import Progress, silent
from tern_hw.errors import TernError

__all__ = ["PlanesReport", "PlanesRow", "contributions", "cosine", "pearson", "planes_of"]


@dataclass(frozen=True)
class PlanesRow:
    """The planes of one kind of layer; correlation and alignment are means over its layers."""

    kind: str
    layers: int
    weights: int
    #: Pearson's, between a1 * b1 and a2 * b2 over a layer's weights.
    correlation: float
    #: Cosine between a2 * b2 and what the first plane leaves, w - a1 * b1: 1 mends it all.
    alignment: float
    #: Shares of zeros in b1 and in b2.
    zeros: tuple[float, float]
    #: Share of weights at the levels 0, a1, a2 and a1 + a2.
    levels: tuple[float, float, float, float]
    #: |W - W_q|^2 / |W|^2.
    error: float
    bits_per_weight: float


@dataclass(frozen=True)
class PlanesReport:
    """The planes of a prepared folder, by kind of layer, "all" last."""

    label: str
    rows: list[PlanesRow]


def contributions(layer: QuantizedLayer) -> tuple[Tensor, Tensor]:
    """Return ``a1 * b1`` and ``a2 * b2`` of a layer, [N, K] each; their sum is its weight.

    Raises
    ------
    TernError
        If its method is not FDB.
    """
    quantizer = layer.quantizer
    if not isinstance(quantizer, FdbQuantizer):
        kind = type(quantizer).__name__.removesuffix("Quantizer").lower()
        raise TernError(f"{layer.name} must have the two planes of fdb, not the codes of {kind}")
    planes = quantizer.planes(layer.latent)
    scales = (quantizer.scale_high.detach(), quantizer.scale_low.detach())
    columns, size = layer.latent.shape[1], quantizer.config.group_size
    first, second = (
        expand_groups(round_fp16(scale), columns, size) * plane
        for scale, plane in zip(scales, planes, strict=True)
    )
    return first, second


def cosine(one: Tensor, other: Tensor) -> float:
    """Return the cosine between two tensors as vectors; 0 where one of them is 0."""
    x, y = one.double().flatten(), other.double().flatten()
    norms = float(x.norm() * y.norm())
    return float(x @ y) / norms if norms else 0.0


def pearson(one: Tensor, other: Tensor) -> float:
    """Return Pearson's correlation of two tensors' entries; 0 where one is constant."""
    x, y = one.double(), other.double()
    return cosine(x - x.mean(), y - y.mean())


def planes_of(
    label: str, layers: Sequence[QuantizedLayer], progress: Progress = silent
) -> PlanesReport:
    """Measure the planes of an FDB model's layers."""
    kinds: dict[str, list[tuple[int, Tensor]]] = {}
    with progress("measuring planes", len(layers)) as advance:
        for layer in layers:
            entry = (layer.latent.numel(), _measures(layer))
            kinds.setdefault(without_block(layer.name), []).append(entry)
            advance(1)
    every = [entry for entries in kinds.values() for entry in entries]
    rows = [_row(kind, entries) for kind, entries in {**kinds, "all": every}.items()]
    return PlanesReport(label, rows)


def _measures(layer: QuantizedLayer) -> Tensor:
    """Return a layer's measures in the order of `_row`, float64 [10]."""
    first, second = contributions(layer)
    b1, b2 = (plane.bool() for plane in layer.quantizer.planes(layer.latent))
    weight = layer.latent.double()
    left = weight - first
    norm = float(weight.square().sum()) or 1.0
    shares = [part.double().mean() for part in (~b1, ~b2, ~b1 & ~b2, b1 & ~b2, ~b1 & b2, b1 & b2)]
    return torch.tensor(
        [
            pearson(first, second),
            cosine(second, left),
            *shares,
            float((left - second).square().sum()) / norm,
            layer.quantizer.bits_per_weight(layer.latent),
        ],
        dtype=torch.float64,
    )


def _row(kind: str, entries: Sequence[tuple[int, Tensor]]) -> PlanesRow:
    """Average the layers, each weighted by its number of weights."""
    sizes = torch.tensor([size for size, _ in entries], dtype=torch.float64)
    table = torch.stack([measures for _, measures in entries])
    mean = ((sizes[:, None] * table).sum(0) / sizes.sum()).tolist()
    return PlanesRow(
        kind=kind,
        layers=len(entries),
        weights=int(sizes.sum()),
        correlation=mean[0],
        alignment=mean[1],
        zeros=(mean[2], mean[3]),
        levels=(mean[4], mean[5], mean[6], mean[7]),
        error=mean[8],
        bits_per_weight=mean[9],
    )
