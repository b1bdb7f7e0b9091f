"""quant.text.batches: which windows of a text a step sees."""

import pytest
import torch

from quant.text.batches import Batches
from tern_hw.errors import TernError
from tests.quant.trainings import TOKENS


def test_each_window_comes_once_a_pass():
    batches = Batches(torch.arange(1000), window=10, batch=3, seed=5)
    steps = batches.windows // 3
    starts = torch.cat([batches.at(step)[:, 0] for step in range(steps)])
    assert batches.windows == 99
    assert len(starts.unique()) == 99
    assert len((starts % 10).unique()) == 1  # one cut of the text
    later = torch.cat([batches.at(step)[:, 0] for step in range(steps, 2 * steps)])
    assert (later % 10 != starts % 10).all()  # and another in the next pass


def test_a_step_depends_on_nothing_before_it():
    one, other = (Batches(TOKENS, window=16, batch=2, seed=1) for _ in range(2))
    for step in range(5):
        one.at(step)
    assert torch.equal(one.at(9), other.at(9))
    assert not torch.equal(one.at(9), Batches(TOKENS, window=16, batch=2, seed=2).at(9))


def test_a_text_of_less_than_two_windows_is_refused():
    with pytest.raises(TernError, match=r"at least 20 tokens \(two windows\), not 19"):
        Batches(torch.arange(19), window=10, batch=1, seed=0)
