"""Cut the rows of a weight into groups of consecutive inputs, a short last group included."""

import torch
from torch import Tensor

from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize

__all__ = ["expand_groups", "join_groups", "split_groups"]


def _span(in_features: int, group_size: GroupSize) -> int:
    """Return the group size as a number of inputs, at most the row."""
    if group_size == "row":
        return in_features
    if isinstance(group_size, bool) or not isinstance(group_size, int) or group_size < 1:
        raise TernError(f'group_size must be "row" or a positive integer, not {group_size!r}')
    return min(group_size, in_features)


def split_groups(weight: Tensor, group_size: GroupSize) -> list[Tensor]:
    """Cut a weight into its full groups and, where K leaves a rest, its short last group.

    Parameters
    ----------
    weight : Tensor, [N, K]
    group_size : int or "row"
        Inputs per group, G.

    Returns
    -------
    list of Tensor
        ``[N, K // G, G]`` and, where G does not divide K, ``[N, 1, K % G]``: views, so that no
        padding exists and none can take part in a fit.
    """
    in_features = weight.shape[1]
    span = _span(in_features, group_size)
    full = in_features - in_features % span
    if full == in_features:
        return [weight.unflatten(1, (-1, span))]
    # Not two slices: the gradient of each would be as wide as the weight, and mostly zeros.
    long, short = weight.split([full, in_features - full], dim=1)
    return [long.unflatten(1, (-1, span)), short.unsqueeze(1)]


def join_groups(pieces: list[Tensor]) -> Tensor:
    """Undo `split_groups`: ``[N, groups, G]`` pieces back to ``[N, K]``."""
    return torch.cat([piece.flatten(1) for piece in pieces], dim=1)


def expand_groups(values: Tensor, in_features: int, group_size: GroupSize) -> Tensor:
    """Repeat a value per group, ``[N, groups]``, over the group's inputs, ``[N, K]``."""
    span = _span(in_features, group_size)
    return values.repeat_interleave(span, dim=1)[:, :in_features]
