"""quant.analysis.outliers and features: gradients against autograd, shares by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant.analysis.features import block_features, text_windows, window_features
from quant.analysis.outliers import (
    channel_outliers,
    mse_gradient,
    off_gradient,
    outlier_channels,
    student_outliers,
    top_count,
)
from quant.models.tiny import byte_tokenizer
from quant.text.excerpt import excerpt
from tern_hw.errors import TernError


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def by_autograd(loss, student, teacher):
    student = student.clone().requires_grad_()
    loss(student, teacher).backward()
    return student.grad


# ------------------------------------------------------------------------------------- gradients


@given(st.integers(0, 2**31), st.integers(1, 9), st.floats(0.01, 100))
def test_gradients_are_those_of_autograd(seed, channels, scale):
    student, teacher = (
        normal(2, 3, channels, seed=seed) * scale,
        normal(2, 3, channels, seed=seed + 1),
    )
    mse = by_autograd(lambda f, t: (f - t).square().mean(-1).sum(), student, teacher)
    off = by_autograd(
        lambda f, t: (1 - torch.cosine_similarity(f, t, dim=-1, eps=0)).sum(), student, teacher
    )
    assert torch.allclose(mse_gradient(student, teacher), mse, rtol=1e-9, atol=1e-12)
    assert torch.allclose(off_gradient(student, teacher), off, rtol=1e-7, atol=1e-9 / scale)


def test_off_gradient_by_hand():
    # f along the first axis, t along the second: cos 0, so the gradient is -v / |f|.
    gradient = off_gradient(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 5.0]))
    assert torch.allclose(gradient, torch.tensor([0.0, -1 / 3]))


def test_off_gradient_stands_at_right_angles_and_is_as_long_as_the_sine_says():
    student, teacher = normal(40, 12, seed=2), normal(40, 12, seed=3)
    gradient = off_gradient(student, teacher)
    assert float((gradient * student).sum(-1).abs().max()) < 1e-12
    cosine = torch.cosine_similarity(student, teacher, dim=-1)
    length = (1 - cosine.square()).sqrt() / student.norm(dim=-1)
    assert torch.allclose(gradient.norm(dim=-1), length)
    assert torch.allclose(off_gradient(student, 7 * teacher), gradient)


# ------------------------------------------------------------------------------------- outliers


@pytest.mark.parametrize(
    ("channels", "share", "top"),
    [(576, 0.01, 6), (40, 0.01, 1), (100, 0.01, 1), (101, 0.01, 2), (8, 1, 8)],
)
def test_top_is_rounded_up_and_never_empty(channels, share, top):
    assert top_count(channels, share) == top


def test_outliers_of_features_by_hand():
    # Root mean squares 1 and, in the last channel, 8; the peak is in a first token.
    features = torch.ones(2, 4, 5)
    features[..., 4] = 0.0
    features[0, 0, 4] = math.sqrt(8 * 64 - 7)
    features[..., 1:, 4] = 1.0
    features[1, 0, 4] = 1.0
    row = channel_outliers(3, features, 0.2)
    assert outlier_channels(features, 0.2).tolist() == [4]
    assert row.block == 3
    assert row.peak == pytest.approx(math.sqrt(505))
    assert row.peak_later == 1
    assert row.standing_out == 1
    assert row.energy == pytest.approx(64 / 68)


def test_pull_of_both_losses_by_hand():
    # Two windows of one token and one of the other kind; channel 0 is the teacher's largest.
    teacher = torch.tensor([[[4.0, 1.0]], [[4.0, 1.0]]])
    student = torch.tensor([[[7.0, 5.0]], [[1.0, 1.0]]])
    result = student_outliers("x", [student], [teacher], 0.5)
    mse, off = result.mse[0], result.off[0]
    # Differences (3, 4) and (-3, 0): 9/25 and 1 of the squares on channel 0.
    assert mse.share == pytest.approx((9 / 25 + 1) / 2)
    assert mse.pooled == pytest.approx(18 / 34)
    assert mse.spread == pytest.approx((1 - 9 / 25) / 2)
    assert mse.sign_changes == 1
    assert mse.top_tokens == pytest.approx(25 / 34)
    # OFF's gradient stands at right angles to f: along (5, -7) and (1, -1).
    assert off.share == pytest.approx((25 / 74 + 1 / 2) / 2)
    cosines = [33 / math.sqrt(17 * 74), 5 / math.sqrt(17 * 2)]
    assert result.off_loss[0] == pytest.approx(1 - sum(cosines) / 2)
    squares = [(1 - c * c) / n for c, n in zip(cosines, (74, 2), strict=True)]
    pooled = (squares[0] * 25 / 74 + squares[1] / 2) / sum(squares)
    assert off.pooled == pytest.approx(pooled)
    # (7, 5) lies nearer to channel 1 than (4, 1) does, and (1, 1) does, too: no turn.
    assert off.sign_changes == 0


def test_a_student_that_agrees_pulls_nowhere():
    teacher = normal(2, 3, 8, seed=4)
    result = student_outliers("x", [teacher], [teacher])
    assert result.mse[0].share == result.mse[0].pooled == result.mse[0].top_tokens == 0
    assert result.off_loss[0] == pytest.approx(0, abs=1e-12)


def test_features_of_zero_are_refused():
    teacher = normal(1, 3, 8, seed=5)
    student = teacher.clone()
    student[0, 1] = 0
    with pytest.raises(TernError, match="features of x must have a direction, not be all 0"):
        student_outliers("x", [student], [teacher])


# ------------------------------------------------------------------------------------- features


def test_block_features_are_the_models_hidden_states(llama):
    ids = torch.arange(24).reshape(2, 12)
    features = block_features(llama, ids)
    with torch.no_grad():
        output = llama(ids, output_hidden_states=True, use_cache=False)
    assert len(features) == 2
    assert torch.equal(features[0], output.hidden_states[1])
    # The last of transformers' states has gone through the final norm.
    assert torch.equal(llama.model.norm(features[1]), output.hidden_states[2])


def test_windows_one_at_a_time_are_the_windows_together(llama):
    ids = torch.arange(40).reshape(4, 10)
    for one, other in zip(window_features(llama, ids), block_features(llama, ids), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_features_leave_no_hook_behind(llama):
    block_features(llama, torch.arange(5)[None])
    assert not any(module._forward_hooks for module in llama.modules())


def test_features_that_are_not_finite_are_refused(llama):
    with torch.no_grad():
        llama.model.layers[1].mlp.down_proj.weight[0, 0] = math.inf
    with pytest.raises(TernError, match=r"features of model\.layers\.1 must be finite"):
        block_features(llama, torch.arange(5)[None])


def test_windows_are_the_start_of_the_text(llama):
    ids = text_windows(llama, byte_tokenizer(), excerpt(), windows=3, tokens=16)
    assert ids.shape == (3, 16)
    assert byte_tokenizer().decode(ids.flatten()) == excerpt()[:48]


def test_windows_default_to_the_models_context_and_to_what_the_text_fills(llama):
    assert text_windows(llama, byte_tokenizer(), "x" * 150, windows=8).shape == (2, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 0}, "--windows must be at least 1, not 0"),
        (
            {"windows": 1, "tokens": 65},
            "--tokens must be from 2 to the model's context of 64, not 65",
        ),
        (
            {"windows": 1, "tokens": 1},
            "--tokens must be from 2 to the model's context of 64, not 1",
        ),
        ({"windows": 1, "tokens": 10}, "text must have at least 10 tokens, not 5"),
    ],
)
def test_windows_are_refused(llama, options, message):
    with pytest.raises(TernError, match=message):
        text_windows(llama, byte_tokenizer(), "short", **options)


def test_ids_beyond_the_vocabulary_are_refused(llama):
    llama.resize_token_embeddings(100)
    with pytest.raises(TernError, match="tokenizer must give ids below 100, as the model has"):
        text_windows(llama, byte_tokenizer(), excerpt(), windows=1)
