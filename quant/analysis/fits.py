"""The weight error of ternary fits: with and without a shift, with and without refitted codes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quant.groups import split_groups
from quant.methods.bits import ternary_bits
from quant.methods.dlt import mean_above_threshold
from quant.ternary import (
    fit_groups,
    least_squares,
    nearest_codes,
    squared_error,
    threshold_codes,
)
from tern_hw.matrix import GroupSize

__all__ = [
    "ErrorRow",
    "add_sums",
    "best_symmetric_error",
    "error_row",
    "error_sums",
    "layer_errors",
    "normal_row",
]

#: Normal weights that stand for chance, about, and their seed.
NORMAL_WEIGHTS: Final = 2**19
SEED: Final = 0


@dataclass(frozen=True)
class ErrorRow:
    """Weight errors |W - D|^2 / |W|^2 of one kind of layer."""

    kind: str
    weights: int
    #: Codes by the threshold 0.7 mean|w|; scale by least squares (TWN).
    threshold_scale: float
    #: The same codes; scale and shift by least squares.
    threshold_shift: float
    #: The best scale and codes there are without a shift.
    symmetric: float
    #: The same in groups of half the size, which store as many scales as DLT scales and shifts.
    symmetric_half: float
    #: Scale and shift, alternating with the codes.
    dlt: float
    #: Share of the gain from `threshold_scale` to `dlt` that is left to the shift after the best
    #: codes and scale.
    shift_part: float
    #: Stored bits a weight without a shift, of the half groups, and with a shift.
    bits_symmetric: float
    bits_half: float
    bits_dlt: float


def best_symmetric_error(groups: Tensor) -> Tensor:
    """Return the lowest ``sum (w - alpha * T)^2`` of any scale and any codes, ``[...]``, float64.

    Notes
    -----
    For a set of weights with code other than 0 the best scale is the mean of |w| over it, and the
    error ``sum w^2 - (sum |w|)^2 / k``; of the sets of k weights the k largest are best. So one
    sort and one pass over k find the optimum: no alternating fit of a scale can do better.
    """
    largest_first = groups.double().abs().sort(-1, descending=True).values
    counts = torch.arange(1, groups.shape[-1] + 1, dtype=torch.float64)
    gain = (largest_first.cumsum(-1).square() / counts).amax(-1)
    return (largest_first.square().sum(-1) - gain).clamp(min=0)


def layer_errors(weight: Tensor, group_size: GroupSize) -> dict[str, float]:
    """Return the squared errors of the fits of `ErrorRow` for a weight ``[N, K]``, by name.

    Scales and shifts are not rounded to binary16 here, in no fit.
    """
    errors = dict.fromkeys(("threshold_scale", "threshold_shift", "symmetric", "dlt"), 0.0)
    for groups in split_groups(weight, group_size):
        codes = threshold_codes(groups)
        zero = groups.new_zeros(groups.shape[:-1])
        best = fit_groups(groups)
        parts = {
            "threshold_scale": _error(groups, codes, mean_above_threshold(groups, codes), zero),
            "threshold_shift": _error(groups, codes, *least_squares(groups, codes)),
            "symmetric": float(best_symmetric_error(groups).sum()),
            "dlt": _error(groups, nearest_codes(groups, *best), *best),
        }
        errors = {name: errors[name] + part for name, part in parts.items()}
    halves = split_groups(weight, _half(weight.shape[1], group_size))
    errors["symmetric_half"] = sum(float(best_symmetric_error(groups).sum()) for groups in halves)
    return errors


def _half(in_features: int, group_size: GroupSize) -> int:
    span = in_features if group_size == "row" else min(group_size, in_features)
    return max(1, span // 2)


def _error(groups: Tensor, codes: Tensor, alpha: Tensor, gamma: Tensor) -> float:
    return float(squared_error(groups.double(), codes, alpha.double(), gamma.double()).sum())


def error_sums(weight: Tensor, group_size: GroupSize) -> dict[str, float]:
    """Return what adds up over layers: errors, the weight's norm, its size and its stored bits."""
    half = _half(weight.shape[1], group_size)
    bits = {
        "bits_symmetric": ternary_bits(weight.shape, group_size, shift=False),
        "bits_half": ternary_bits(weight.shape, half, shift=False),
        "bits_dlt": ternary_bits(weight.shape, group_size, shift=True),
    }
    return {
        **layer_errors(weight, group_size),
        **{name: value * weight.numel() for name, value in bits.items()},
        "norm": float(weight.double().square().sum()),
        "weights": weight.numel(),
    }


def add_sums(total: dict[str, float], part: Mapping[str, float]) -> None:
    """Add one layer's sums to a total, in place."""
    for name, value in part.items():
        total[name] = total.get(name, 0) + value


def error_row(kind: str, sums: Mapping[str, float]) -> ErrorRow:
    """Return the errors that sums of `error_sums` amount to."""
    norm, weights = sums["norm"] or 1.0, sums["weights"]
    parts = {
        name: value / (weights if name.startswith("bits") else norm)
        for name, value in sums.items()
        if name not in ("norm", "weights")
    }
    gain = parts["threshold_scale"] - parts["dlt"]
    shift_part = (parts["symmetric"] - parts["dlt"]) / gain if gain > 0 else 0.0
    return ErrorRow(kind, int(weights), shift_part=shift_part, **parts)


def normal_row(group_size: int) -> ErrorRow:
    """Return the errors on independent normal weights: what a shift gains where nothing leans."""
    generator = torch.Generator().manual_seed(SEED)
    rows = max(64, NORMAL_WEIGHTS // group_size)
    weight = torch.randn(rows, group_size, generator=generator)
    return error_row("normal weights", error_sums(weight, group_size))
