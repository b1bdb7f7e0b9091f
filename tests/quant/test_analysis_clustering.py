"""quant.analysis.clustering: each measure on points whose answer is known."""

import math

import pytest
import torch

from quant.analysis import clustering
from quant.analysis.clustering import (
    clustering_of,
    linear_cka,
    neighbour_overlap,
    principal_plane,
    silhouette,
    word_features,
    word_labels,
)
from quant.analysis.features import block_features
from quant.analysis.words import TEMPLATE, WORD_GROUPS
from quant.models.tiny import byte_tokenizer
from tern_hw.errors import TernError

#: Two words each.
PAIRS = {"a": ("red", "blue"), "b": ("dog", "horse")}


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def directions(*degrees):
    """Points on the unit circle, two by two opposite, so that their mean is 0."""
    angles = (
        torch.tensor([*degrees, *(degree + 180 for degree in degrees)]).double() * math.pi / 180
    )
    return torch.stack([angles.cos(), angles.sin()], dim=1)


# ------------------------------------------------------------------------------------ the words


def test_words_are_in_eight_groups_of_equal_size_and_none_twice():
    words = [word for members in WORD_GROUPS.values() for word in members]
    assert len(WORD_GROUPS) == 8
    assert {len(members) for members in WORD_GROUPS.values()} == {8}
    assert len(set(words)) == len(words) == len(word_labels()) == 64
    assert word_labels()[7:9] == ["animals", "colours"]


def test_word_feature_is_the_mean_over_its_own_tokens(llama):
    tokenizer = byte_tokenizer()
    features = word_features(llama, tokenizer, PAIRS)
    assert [tuple(each.shape) for each in features] == [(4, 40)] * 2
    # A token a byte: the space and the word itself.
    ids = tokenizer(f"{TEMPLATE} horse").input_ids
    whole = block_features(llama, torch.tensor([ids]))
    for ours, expected in zip(features, whole, strict=True):
        assert torch.equal(ours[3], expected[0, len(TEMPLATE) :].double().mean(0))


def test_ids_beyond_the_vocabulary_are_refused(llama):
    llama.resize_token_embeddings(70)
    with pytest.raises(TernError, match="tokenizer must give ids below 70, as the model has"):
        word_features(llama, byte_tokenizer(), PAIRS)


def test_sentence_longer_than_the_context_is_refused(llama):
    with pytest.raises(TernError, match="sentence must fit the model's context of 64 tokens"):
        word_features(llama, byte_tokenizer(), PAIRS, template="x" * 70)


# ----------------------------------------------------------------------------------- silhouette


def test_silhouette_by_hand():
    # Within a group 60 degrees (cosine 1/2, distance 1/2); to the other group 180, 120 and 240.
    points = directions(0.0, 60.0)
    a, b = 0.5, (2.0 + 1.5) / 2
    assert silhouette(points, ["x", "x", "y", "y"]) == pytest.approx((b - a) / b)


def test_silhouette_of_groups_that_coincide_with_nothing_is_low():
    points = directions(0.0, 60.0)
    assert silhouette(points, ["x", "y", "x", "y"]) < 0


def test_silhouette_does_not_see_what_all_words_share():
    points, labels = normal(12, 5, seed=1), ["x", "y", "z"] * 4
    assert silhouette(points + 100, labels) == pytest.approx(silhouette(points, labels), abs=1e-9)


# -------------------------------------------------------------------------------------- overlap


def test_overlap_by_hand():
    # Nearest on the circle: 0 and 40, 180 and 220; in the other, 0 and 300 (140 + 180).
    one, other = directions(0.0, 40.0), directions(0.0, 140.0)
    assert neighbour_overlap(one, one, 1) == 1
    assert neighbour_overlap(one, other, 1) == 0
    # With two neighbours only the opposite point is left out.
    assert neighbour_overlap(one, other, 2) == 1


def test_overlap_of_unrelated_features_is_chance():
    overlap = neighbour_overlap(normal(400, 50, seed=2), normal(400, 50, seed=3), 20)
    assert overlap == pytest.approx(20 / 399, abs=0.01)


def test_a_word_is_not_its_own_neighbour():
    points = normal(6, 3, seed=4)
    assert neighbour_overlap(points, points, 5) == 1
    with pytest.raises(TernError, match="--neighbours must be from 1 to 5, not 6"):
        neighbour_overlap(points, points, 6)


# ------------------------------------------------------------------------------------------ CKA


def test_cka_is_the_papers_formula():
    x, y = normal(9, 4, seed=5), normal(9, 6, seed=6)
    xc, yc = x - x.mean(0), y - y.mean(0)
    cross = (yc.T @ xc).norm() ** 2
    expected = float(cross / ((xc.T @ xc).norm() * (yc.T @ yc).norm()))
    assert linear_cka(x, y) == pytest.approx(expected)
    assert linear_cka(y, x) == pytest.approx(expected)


def test_cka_ignores_rotation_scale_and_shift():
    x = normal(9, 4, seed=7)
    rotation, _ = torch.linalg.qr(normal(4, 4, seed=8))
    assert linear_cka(3 * x @ rotation + 5, x) == pytest.approx(1)


def test_cka_of_orthogonal_features_is_zero():
    x = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    y = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    assert linear_cka(x, y) == 0
    assert linear_cka(x * 0, y) == 0


# --------------------------------------------------------------------------------- all together


def test_clustering_measures_every_block_and_a_teacher_agrees_with_itself():
    features = [normal(8, 5, seed=seed) for seed in (9, 10, 11)]
    result = clustering_of("x", features, features, ["a", "b"] * 4, 3)
    assert result.overlap == [1.0] * 3
    assert result.cka == pytest.approx([1.0] * 3)
    assert len(result.silhouette) == 3
    assert all(0 < chance < 0.95 for chance in result.cka_by_chance)


def test_chance_is_the_same_each_time(monkeypatch):
    features = [normal(8, 5, seed=12)]
    one = clustering_of("x", features, features, ["a", "b"] * 4, 3)
    assert one == clustering_of("x", features, features, ["a", "b"] * 4, 3)
    monkeypatch.setattr(clustering, "SEED", 1)
    assert one != clustering_of("x", features, features, ["a", "b"] * 4, 3)


def test_plane_keeps_the_distances_of_features_that_lie_in_one():
    points = directions(0.0, 60.0) @ normal(2, 7, seed=13)
    unit = torch.nn.functional.normalize(points, dim=1)
    plane = principal_plane(points)
    assert plane.shape == (4, 2)
    assert torch.allclose(torch.cdist(plane, plane), torch.cdist(unit, unit), atol=1e-7)
