"""Errors measured at a layer's output, ``||X (W - D)||^2``: damping, and GPTQ's compensation.

With ``H = X^T X / tokens`` the error of a row e of W - D is ``e H e^T``; rows are independent.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from quant.methods.grids import spans
from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize

__all__ = ["compensate", "compensated_groups", "damped", "inverse_factor", "output_error"]


def output_error(weight: Tensor, levels: Tensor, gram: Tensor) -> float:
    """Return ``||X (W - D)||^2 / ||X W||^2`` for weights and levels ``[N, K]``, H ``[K, K]``."""
    exact, rest = weight.double(), weight.double() - levels.double()
    norm = ((exact @ gram) * exact).sum()
    return float(((rest @ gram) * rest).sum() / norm) if norm > 0 else 0.0


def damped(gram: Tensor, damping: float) -> Tensor:
    """Return ``H + damping * mean(diag H) * I``, float64 [K, K].

    An input that is 0 throughout the calibration text would leave H without a word on its
    weights: its diagonal becomes the mean, its other entries are 0 anyway. (GPTQ sets such weights
    to 0; here they are rounded like any other, since other text may well use them.)
    """
    diagonal = gram.diagonal()
    mean = diagonal.mean()
    mean = torch.where(mean > 0, mean, torch.ones_like(mean))
    return gram + torch.diag(damping * mean + torch.where(diagonal == 0, mean, 0.0))


def inverse_factor(gram: Tensor, name: str) -> Tensor:
    """Return the upper triangular U with ``U^T U = H^-1``, float64 [K, K] (GPTQ, algorithm 1)."""
    lower, fault = torch.linalg.cholesky_ex(gram)
    if int(fault) == 0:
        upper, fault = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if int(fault):
        raise TernError(
            f"damping must be large enough to make X^T X of {name} positive definite, "
            "not as small as it is"
        )
    return upper


def compensate(
    weight: Tensor,
    factor: Tensor,
    spans: Sequence[slice],
    quantize: Callable[[Tensor, slice], Tensor],
) -> Tensor:
    """Quantise spans of columns in order; the columns after each make up for its error.

    Parameters
    ----------
    weight : Tensor, [N, K]
    factor : Tensor, [K, K]
        U of `inverse_factor`, in the dtype of `weight`.
    spans : sequence of slice
        Consecutive columns that cover K.
    quantize : callable
        Takes a span's weights as they now are, ``[N, G]``, and the span; returns its levels.

    Returns
    -------
    Tensor, [N, K]
        The levels.

    Notes
    -----
    The best change of the remaining columns R for an error e in the columns B is
    ``-e (H^-1_BB)^-1 H^-1_BR`` (Optimal Brain Surgeon), all taken with the columns before B
    fixed. With U this is ``-e U_BB^-1 U_BR``: GPTQ's column update (arXiv:2210.17323, eq. 4 and
    5), for a whole span at once.
    """
    work = weight.clone()
    for span in spans:
        current = work[:, span]
        levels = quantize(current, span)
        error = torch.linalg.solve_triangular(
            factor[span, span], current - levels, upper=True, left=False
        )
        work[:, span.stop :] -= error @ factor[span, span.stop :]
        work[:, span] = levels
    return work


def compensated_groups(
    weight: Tensor,
    factor: Tensor,
    group_size: GroupSize,
    fit: Callable[[Tensor, slice], tuple[Tensor, Tensor, Tensor]],
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit group after group, each to the weights as the errors of those before have left them.

    Parameters
    ----------
    weight : Tensor, [N, K]
    factor : Tensor, [K, K]
        U of `inverse_factor`.
    group_size : int or "row"
    fit : callable
        Takes a group's weights as they now are, ``[N, G]``, and its columns; returns codes
        ``[N, G]``, scale ``[N]`` and shift ``[N]``.

    Returns
    -------
    codes : Tensor, [N, K]
    scale, shift : Tensor, [N, groups]
    """
    fits: list[tuple[Tensor, Tensor, Tensor]] = []

    def quantize(groups: Tensor, span: slice) -> Tensor:
        codes, scale, shift = fit(groups, span)
        fits.append((codes, scale, shift))
        return scale.unsqueeze(-1) * codes + shift.unsqueeze(-1)

    compensate(weight, factor.to(weight.dtype), spans(weight.shape[1], group_size), quantize)
    codes, scales, shifts = zip(*fits, strict=True)
    return torch.cat(codes, dim=1), torch.stack(scales, dim=1), torch.stack(shifts, dim=1)
