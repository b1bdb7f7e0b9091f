"""DLT, dual learnable ternarisation: threshold, codes, and the scale and shift that fit them best.

A group w of a weight's row becomes ``D = alpha * T + gamma`` with trits T in {-1, 0, +1}: a scale
and a shift per group (TernaryLLM, arXiv:2406.07177; codes by the threshold of Ternary Weight
Networks, arXiv:1605.04711). The functions on groups are pure and work over the last axis, so any
batch of groups takes one call; `ternarize` applies them to a weight ``[N, K]``.
"""

from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor

from quant.groups import expand_groups, join_groups, split_groups
from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize, TernaryMatrix

__all__ = [
    "THRESHOLD_FACTOR",
    "TernaryFit",
    "alternating_least_squares",
    "check_factor",
    "dequantize",
    "fit_groups",
    "least_squares",
    "nearest_codes",
    "ternarize",
    "threshold",
    "threshold_codes",
    "threshold_trits",
]

#: Delta over mean|w|: TWN's rule for weights between uniform (2/3) and normal (0.75).
THRESHOLD_FACTOR: Final = 0.7
#: Rounds of alternating least squares; groups of 128 real weights settle in 6 to 12.
MAX_ROUNDS: Final = 64
#: Largest finite binary16.
FP16_MAX: Final = 65504


@dataclass(frozen=True)
class TernaryFit:
    """A weight as trits, with the binary16 scale and shift that the artifact stores."""

    #: int8 [N, K], in {-1, 0, +1}.
    trits: Tensor
    #: float16 [N, groups], alpha >= 0.
    scale: Tensor
    #: float16 [N, groups], gamma.
    shift: Tensor
    #: Inputs per scale and shift.
    group_size: GroupSize

    @classmethod
    def from_matrix(cls, matrix: TernaryMatrix) -> Self:
        """Return an artifact's matrix; where its scale is negative, trits and scale are turned."""
        trits = torch.from_numpy(matrix.digits()).to(torch.int8) - 1
        scale, shift = (torch.from_numpy(part.copy()) for part in (matrix.scale, matrix.shift))
        turned = expand_groups(scale.sign().to(torch.int8), matrix.in_features, matrix.group_size)
        return cls(torch.where(turned < 0, -trits, trits), scale.abs(), shift, matrix.group_size)

    @property
    def digits(self) -> Tensor:
        """Trits + 1, uint8 [N, K] in {0, 1, 2}, as the packings hold them."""
        return (self.trits + 1).to(torch.uint8)

    def dequantize(self) -> Tensor:
        """Return the levels that the trits stand for, float32 [N, K]."""
        return dequantize(self.trits, self.scale, self.shift, self.group_size)

    def relative_error(self, weight: Tensor) -> float:
        """Return ``|W - D|^2 / |W|^2`` over the whole weight (0 where W is all zero)."""
        exact = weight.double()
        norm = float(exact.square().sum())
        return float((exact - self.dequantize().double()).square().sum()) / norm if norm else 0.0


# ------------------------------------------------------------------ on groups: the last axis is one


def threshold(groups: Tensor, factor: float = THRESHOLD_FACTOR) -> Tensor:
    """Return ``delta = factor * mean|w|`` of each group.

    Parameters
    ----------
    groups : Tensor, [..., G]
    factor : float
        0.7 in TWN (arXiv:1605.04711) and in DLT; others use 0.75.

    Returns
    -------
    Tensor, [...]
    """
    # As a norm it takes one pass, and no copy of |w|.
    return torch.linalg.vector_norm(groups, 1, -1) * (factor / groups.shape[-1])


def threshold_codes(
    groups: Tensor, factor: float = THRESHOLD_FACTOR, *, center: bool = False
) -> Tensor:
    """Return DLT's codes: the sign of w where ``|w| > delta``, else 0.

    Parameters
    ----------
    groups : Tensor, [..., G]
    factor : float
        See `threshold`.
    center : bool
        Subtract the group's mean first. DLT as its re-implementations have it does not;
        PT2-LLM does, and it helps where a group leans to one side.

    Returns
    -------
    Tensor, [..., G]
        -1, 0, +1 in the dtype of `groups`.
    """
    return threshold_trits(groups, factor, center=center).to(groups.dtype)


def threshold_trits(
    groups: Tensor, factor: float = THRESHOLD_FACTOR, *, center: bool = False
) -> Tensor:
    """Return `threshold_codes` as int8, which takes a fifth of the time."""
    if center:
        groups = groups - groups.mean(-1, keepdim=True)
    delta = threshold(groups, factor).unsqueeze(-1)
    # A boolean is a byte of 0 or 1: seen as int8 it costs no pass over the weights.
    return (groups > delta).view(torch.int8) - (groups < -delta).view(torch.int8)


def least_squares(groups: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale and shift that minimise ``|w - alpha * T - gamma|^2`` for given codes.

    Parameters
    ----------
    groups, codes : Tensor, [..., G]

    Returns
    -------
    alpha, gamma : Tensor, [...]
        Where all codes of a group are equal only ``alpha * T + gamma`` is determined: alpha is 0
        and gamma the mean.

    Notes
    -----
    The normal equations of a straight line through (T, w), as in PT2-LLM (eq. 9):

    ``alpha = sum(T * (w - mean w)) / (sum T^2 - (sum T)^2 / G)``
    ``gamma = mean w - alpha * mean T``

    The denominator is a small difference of large integers, so it is formed in float64; w is
    centred first, so that a shift much larger than the scale costs no digits.
    """
    size = groups.shape[-1]
    mean = groups.mean(-1, keepdim=True)
    covariance = (codes * (groups - mean)).sum(-1).double()
    code_sum = codes.sum(-1).double()
    spread = size * codes.square().sum(-1).double() - code_sum.square()
    alpha = torch.where(spread > 0, size * covariance / spread.clamp(min=1), 0.0)
    gamma = mean.squeeze(-1).double() - alpha * code_sum / size
    return alpha.to(groups.dtype), gamma.to(groups.dtype)


def nearest_codes(groups: Tensor, alpha: Tensor, gamma: Tensor) -> Tensor:
    """Return for each weight the code of the nearest level; 0 on ties and where alpha is 0.

    Parameters
    ----------
    groups : Tensor, [..., G]
    alpha, gamma : Tensor, [...]
        Scale (not negative) and shift.

    Returns
    -------
    Tensor, [..., G]
        -1, 0, +1 in the dtype of `groups`.
    """
    # An infinite step sends every weight of a group without levels to code 0.
    step = torch.where(alpha > 0, alpha, torch.inf).unsqueeze(-1)
    return (groups - gamma.unsqueeze(-1)).div_(step).round_().clamp_(-1, 1)


def alternating_least_squares(
    groups: Tensor, codes: Tensor, max_rounds: int = MAX_ROUNDS
) -> tuple[Tensor, Tensor, Tensor]:
    """Improve codes, scale and shift in turn until the codes stay.

    Parameters
    ----------
    groups, codes : Tensor, [..., G]
        The weights, and the codes to start from.
    max_rounds : int
        Rounds after which to stop all the same.

    Returns
    -------
    codes : Tensor, [..., G]
    alpha, gamma : Tensor, [...]
        The least-squares answer to these codes.

    Notes
    -----
    (i) alpha, gamma <- least squares given T; (ii) T <- nearest level given alpha, gamma. Neither
    step can raise the squared error, so it ends in a local minimum (PT2-LLM, iterative ternary
    fitting; Lloyd's algorithm with equally spaced levels).
    """
    codes = codes.clone()
    flat_codes = codes.view(-1, codes.shape[-1])
    moving, part, old = torch.arange(len(flat_codes)), groups.reshape_as(flat_codes), flat_codes
    for _ in range(max_rounds):
        nearest = nearest_codes(part, *least_squares(part, old))
        moved = (nearest != old).any(-1)
        # Most groups settle at once: only those that still move take part in the next round.
        moving, part, old = moving[moved], part[moved], nearest[moved]
        if not len(moving):
            break
        flat_codes[moving] = old
    return codes, *least_squares(groups, codes)


def squared_error(groups: Tensor, codes: Tensor, alpha: Tensor, gamma: Tensor) -> Tensor:
    """Return ``sum (w - alpha * T - gamma)^2`` of each group, ``[...]``."""
    return (groups - alpha.unsqueeze(-1) * codes - gamma.unsqueeze(-1)).square().sum(-1)


def fit_groups(groups: Tensor, factor: float = THRESHOLD_FACTOR) -> tuple[Tensor, Tensor]:
    """Return the scale and shift of each group: alternating least squares from two starts.

    Parameters
    ----------
    groups : Tensor, [..., G]
    factor : float
        Threshold of the starting codes, see `threshold`.

    Returns
    -------
    alpha, gamma : Tensor, [...]

    Notes
    -----
    DLT's own codes are one start, those of the centred group the other, and a group keeps the one
    that ends with the lower error. The second start also rescues a group whose weights all lie
    beyond the threshold on one side, where the first has one code only and nothing to fit.
    """
    errors, scales, shifts = [], [], []
    for center in (False, True):
        start = threshold_codes(groups, factor, center=center)
        codes, alpha, gamma = alternating_least_squares(groups, start)
        errors.append(squared_error(groups, codes, alpha, gamma))
        scales.append(alpha)
        shifts.append(gamma)
    better = errors[1] < errors[0]
    return torch.where(better, scales[1], scales[0]), torch.where(better, shifts[1], shifts[0])


# -------------------------------------------------------------------------------- on weights [N, K]


def ternarize(
    weight: Tensor,
    group_size: GroupSize = 128,
    *,
    factor: float = THRESHOLD_FACTOR,
    name: str = "weight",
) -> TernaryFit:
    """Fit trits, scales and shifts to a weight.

    Parameters
    ----------
    weight : Tensor, [N, K]
        Any floating-point dtype; fitted in float32.
    group_size : int or "row"
        Inputs per scale and shift. Where it does not divide K, the last group is short.
    factor : float
        Threshold of the starting codes, see `threshold`.
    name : str
        What errors call the weight.

    Returns
    -------
    TernaryFit
        Scale and shift are rounded to binary16 and the codes are those of the levels so rounded.
        A scale below binary16's range (2^-25) rounds to 0: such a group is its shift.

    Raises
    ------
    TernError
        If the weight is not a finite floating-point matrix, or a scale or shift exceeds binary16.
    """
    matrix = _checked(weight, factor, name)
    pieces = split_groups(matrix, group_size)
    alphas, gammas = zip(*(fit_groups(groups, factor) for groups in pieces), strict=True)
    scale = _as_fp16(torch.cat(alphas, dim=1), f"scale of {name}")
    shift = _as_fp16(torch.cat(gammas, dim=1), f"shift of {name}")
    counts = [groups.shape[1] for groups in pieces]
    levels = zip(scale.float().split(counts, 1), shift.float().split(counts, 1), strict=True)
    codes = [nearest_codes(w, *level) for w, level in zip(pieces, levels, strict=True)]
    return TernaryFit(join_groups(codes).to(torch.int8), scale, shift, group_size)


def check_factor(factor: float) -> None:
    """Refuse a threshold's factor that is out of range."""
    if not 0 <= factor < 1:
        raise TernError(f"factor must be at least 0 and below 1, not {factor!r}")


def _checked(weight: Tensor, factor: float, name: str) -> Tensor:
    """Return the weight in float32 after refusing what cannot be fitted."""
    check_factor(factor)
    if weight.ndim != 2 or 0 in weight.shape or not weight.is_floating_point():
        kind = f"{weight.dtype} {list(weight.shape)}".removeprefix("torch.")
        raise TernError(f"{name} must be a floating-point matrix [N, K], not {kind}")
    matrix = weight.detach().float()
    if not bool(matrix.isfinite().all()):
        n, k = (~matrix.isfinite()).nonzero()[0].tolist()
        raise TernError(f"{name}[{n}, {k}] must be finite, not {float(matrix[n, k])}")
    return matrix


def _as_fp16(values: Tensor, name: str) -> Tensor:
    """Round ``[N, groups]`` values to binary16, refusing those beyond its range."""
    rounded = values.half()
    if not bool(rounded.isfinite().all()):
        row, group = (~rounded.isfinite()).nonzero()[0].tolist()
        raise TernError(
            f"{name} (row {row}, group {group}) must be at most {FP16_MAX} in magnitude, "
            f"as fp16 holds it, not {float(values[row, group]):g}"
        )
    return rounded


def dequantize(trits: Tensor, scale: Tensor, shift: Tensor, group_size: GroupSize) -> Tensor:
    """Return ``alpha * T + gamma``, float32 [N, K].

    Parameters
    ----------
    trits : Tensor, [N, K]
        In {-1, 0, +1}, any dtype.
    scale, shift : Tensor, [N, groups]
    group_size : int or "row"

    Notes
    -----
    The product is exact; the sum of two binary16 is exact in float32 unless their exponents lie
    more than 13 apart, and then rounded once to nearest even.
    """
    in_features = trits.shape[1]
    alpha = expand_groups(scale.float(), in_features, group_size)
    gamma = expand_groups(shift.float(), in_features, group_size)
    return alpha * trits.float() + gamma
