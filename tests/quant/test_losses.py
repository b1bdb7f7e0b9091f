"""Losses against their definitions, and gradients against closed form or autograd."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from quant.losses.features import (
    FeatureLoss,
    Features,
    clipped_mse,
    feature_loss,
    huber,
    mse,
    off,
)
from quant.losses.logits import (
    deviation_aware,
    entropy_weights,
    label_loss,
    teacher_divergence,
)


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def gradient(loss: Callable[[Tensor], Tensor], leaf: Tensor) -> Tensor:
    leaf = leaf.clone().requires_grad_()
    loss(leaf).backward()
    return leaf.grad


def test_off_of_known_angles():
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    student = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    assert off(student, teacher).item() == pytest.approx((0 + 1 + 2) / 3)


def test_off_has_the_closed_gradient():
    student, teacher = draw(5, 8, seed=1), draw(5, 8, seed=2)
    f, t = student.norm(dim=-1, keepdim=True), teacher.norm(dim=-1, keepdim=True)
    cosine = (student * teacher).sum(-1, keepdim=True) / (f * t)
    closed = (cosine * student / f - teacher / t) / f / len(student)
    torch.testing.assert_close(gradient(lambda s: off(s, teacher), student), closed)


def test_off_ignores_a_tokens_scale():
    student, teacher = draw(5, 8, seed=1), draw(5, 8, seed=2)
    torch.testing.assert_close(off(student * 7, teacher), off(student, teacher))


def test_mse_is_relative_to_the_teacher():
    teacher = torch.tensor([[3.0, 4.0]])
    assert mse(torch.zeros(1, 2), teacher).item() == pytest.approx(1)
    assert mse(teacher + 5, teacher).item() == pytest.approx(2 * 25 / 25)


def test_clipped_mse_ignores_what_lies_beyond_the_clip():
    teacher = torch.zeros(1, 100)
    teacher[0, 0] = 100.0
    bound = 3 * teacher.std().item()
    inside, beyond = teacher.clone(), teacher.clone()
    inside[0, 0], beyond[0, 0] = bound / 2, 10 * bound
    assert clipped_mse(beyond, teacher).item() == 0
    assert clipped_mse(inside, teacher).item() == pytest.approx(0.25)
    assert mse(beyond, teacher).item() > 1


def test_huber_is_square_near_and_straight_far():
    teacher = torch.tensor([[-1.0, 1.0]])
    sigma = teacher.std().item()
    near, far = teacher + 0.5 * sigma, teacher + 10 * sigma
    assert huber(near, teacher).item() == pytest.approx(0.5 * 0.25)
    assert huber(far, teacher).item() == pytest.approx(10 - 0.5)


def test_feature_loss_takes_all_blocks_or_the_last():
    student = [draw(2, 3, 4, seed=i) for i in range(4)]
    teacher = [draw(2, 3, 4, seed=10 + i) for i in range(4)]
    each = [off(s, t) for s, t in zip(student, teacher, strict=True)]
    every = feature_loss(FeatureLoss.OFF, Features.ALL, student, teacher)
    last = feature_loss(FeatureLoss.OFF, Features.LAST, student, teacher)
    torch.testing.assert_close(every, sum(each[1:]) / 3)  # the embedding's output is not compared
    torch.testing.assert_close(last, each[-1])


def test_divergence_is_kl_with_the_gradient_of_autograd():
    student, teacher = draw(2, 3, 11, seed=1, scale=3), draw(2, 3, 11, seed=2, scale=3)

    def plain(logits: Tensor) -> Tensor:
        p, q = teacher.log_softmax(-1), logits.log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1).mean()

    torch.testing.assert_close(teacher_divergence(student, teacher), plain(student))
    torch.testing.assert_close(
        gradient(lambda s: teacher_divergence(s, teacher), student), gradient(plain, student)
    )


def test_divergence_of_equal_logits_is_zero():
    logits = draw(2, 3, 11)
    assert teacher_divergence(logits, logits).item() == 0
    assert not gradient(lambda s: teacher_divergence(s, logits), logits).any()


def test_dad_with_exponent_zero_is_plain_divergence():
    student, teacher = draw(2, 3, 11, seed=1), draw(2, 3, 11, seed=2)
    torch.testing.assert_close(
        deviation_aware(student, teacher, 0.0), teacher_divergence(student, teacher)
    )


def test_dad_weighs_uncertain_tokens_by_their_entropy():
    certain = torch.tensor([50.0, 0.0, 0.0, 0.0])
    halved = torch.tensor([50.0, 50.0, 0.0, 0.0])
    uniform = torch.zeros(4)
    weights = entropy_weights(torch.stack([certain, halved, uniform])[None], 1.0)
    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.5, 1.0]]))


def test_dad_is_the_weighed_divergence():
    student, teacher = draw(2, 3, 11, seed=1), draw(2, 3, 11, seed=2, scale=4)
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    divergence = (p.exp() * (p - q)).sum(-1)
    expected = (entropy_weights(teacher, 2.0) * divergence).mean()
    torch.testing.assert_close(deviation_aware(student, teacher, 2.0), expected)


def test_dad_is_the_mean_of_its_parts_however_the_batch_is_cut():
    student, teacher = draw(4, 3, 11, seed=1), draw(4, 3, 11, seed=2)
    teacher[2:] *= 50  # certain tokens in one half
    halves = [deviation_aware(student[at], teacher[at]) for at in (slice(2), slice(2, 4))]
    torch.testing.assert_close(deviation_aware(student, teacher), sum(halves) / 2)


def test_label_loss_predicts_the_next_token():
    logits, tokens = draw(1, 4, 7), torch.tensor([[3, 1, 4, 1]])
    expected = functional.cross_entropy(logits[0, :3], torch.tensor([1, 4, 1]))
    torch.testing.assert_close(label_loss(logits, tokens), expected)
