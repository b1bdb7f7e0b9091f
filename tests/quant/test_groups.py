"""quant.groups: cutting rows into groups and putting them together again."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant.groups import expand_groups, join_groups, split_groups
from tern_hw.errors import TernError
from tern_hw.matrix import group_count

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 40))
GROUP_SIZES = st.one_of(st.integers(1, 50), st.just("row"))


@given(SHAPES, GROUP_SIZES)
def test_groups_are_runs_of_consecutive_inputs_and_only_the_last_is_short(shape, group_size):
    rows, columns = shape
    weight = torch.arange(rows * columns).reshape(shape)
    span = columns if group_size == "row" else group_size
    pieces = split_groups(weight, group_size)
    assert all(piece.numel() for piece in pieces)
    groups = [group for piece in pieces for group in piece.unbind(1)]
    expected = [weight[:, k : k + span] for k in range(0, columns, span)]
    assert len(groups) == len(expected) == group_count(columns, group_size)
    assert all(map(torch.equal, groups, expected))


@given(SHAPES, GROUP_SIZES)
def test_join_undoes_split(shape, group_size):
    weight = torch.arange(math.prod(shape)).reshape(shape)
    assert torch.equal(join_groups(split_groups(weight, group_size)), weight)


@given(SHAPES, GROUP_SIZES)
def test_expand_repeats_each_group_over_its_inputs(shape, group_size):
    rows, columns = shape
    values = torch.arange(rows * group_count(columns, group_size)).reshape(rows, -1)
    expanded = expand_groups(values, columns, group_size)
    span = columns if group_size == "row" else group_size
    assert expanded.shape == shape
    assert all(expanded[n, k] == values[n, k // span] for n in range(rows) for k in range(columns))


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, "rows", None])
def test_group_size_is_refused(bad):
    with pytest.raises(TernError, match=r'group_size must be "row" or a positive integer, not'):
        split_groups(torch.zeros(1, 4), bad)
