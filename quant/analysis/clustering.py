"""Semantic clustering: whether words of one meaning lie together, before and after ternarisation.

Each word is read at the end of the same sentence; its feature after a block is the mean over its
tokens. All measures work on features from which the mean over all words is taken: the part that
every word shares says nothing of their meaning, and would fill the cosine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.analysis.features import block_features
from quant.analysis.words import TEMPLATE, WORD_GROUPS
from quant.progress import Progress, silent
from tern_hw.errors import TernError

__all__ = [
    "Clustering",
    "clustering_of",
    "linear_cka",
    "neighbour_overlap",
    "principal_plane",
    "silhouette",
    "word_features",
    "word_labels",
]

#: Neighbours of a word that are compared.
NEIGHBOURS: Final = 5
#: Random pairings of words behind the figure for chance, and their seed.
PAIRINGS: Final = 20
SEED: Final = 0


@dataclass(frozen=True)
class Clustering:
    """One model's clustering, block by block, and how like the teacher's it is."""

    label: str
    #: Over the word groups, cosine distance, in [-1, 1]; higher is tighter.
    silhouette: list[float]
    #: Share of a word's nearest words that are also its nearest in the teacher; mean over words.
    overlap: list[float]
    #: Linear CKA with the teacher, in [0, 1], and its mean over random pairings of the words.
    cka: list[float]
    cka_by_chance: list[float]


def word_labels(groups: Mapping[str, Sequence[str]] = WORD_GROUPS) -> list[str]:
    """Return the group of every word, in the order of `word_features`."""
    return [group for group, words in groups.items() for _ in words]


def word_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    groups: Mapping[str, Sequence[str]] = WORD_GROUPS,
    template: str = TEMPLATE,
    progress: Progress = silent,
) -> list[Tensor]:
    """Return every word's feature after each block: list of float64 [words, D].

    Raises
    ------
    TernError
        If the tokenizer gives a word no token of its own, or ids that the model lacks.
    """
    words = [word for members in groups.values() for word in members]
    start = _ids(tokenizer, template)
    rows: list[list[Tensor]] = []
    with progress("reading words", len(words)) as advance:
        for word in words:
            ids = _ids(tokenizer, f"{template} {word}")
            shared = _common(start, ids)
            if shared == len(ids):
                raise TernError(f"tokenizer must give the word {word!r} a token, not none")
            _check_ids(model, ids)
            features = block_features(model, torch.tensor([ids]))
            rows.append([feature[0, shared:].double().mean(0) for feature in features])
            advance(1)
    return [torch.stack(each) for each in zip(*rows, strict=True)]


def silhouette(features: Tensor, labels: Sequence[str]) -> float:
    """Return the mean silhouette of centred features ``[words, D]`` over their groups.

    Notes
    -----
    ``(b - a) / max(a, b)`` with a the mean cosine distance to the words of the own group and b to
    those of the nearest other (Rousseeuw 1987, J. Comput. Appl. Math. 20, as scikit-learn has it).
    """
    # Here and not above: it costs as much to import as the rest of the measure.
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(_centred(features).numpy(), list(labels), metric="cosine"))


def neighbour_overlap(student: Tensor, teacher: Tensor, k: int = NEIGHBOURS) -> float:
    """Return the share of each word's k nearest words that both agree on; mean over words.

    Nearest by cosine of centred features ``[words, D]``; by chance it is ``k / (words - 1)``.
    """
    if not 1 <= k < len(teacher):
        raise TernError(f"--neighbours must be from 1 to {len(teacher) - 1}, not {k}")
    ours, theirs = _neighbours(student, k), _neighbours(teacher, k)
    return float((ours & theirs).sum(1).double().mean()) / k


def linear_cka(student: Tensor, teacher: Tensor) -> float:
    """Return linear centred kernel alignment of features ``[words, D]``.

    Notes
    -----
    ``|Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F)`` with X and Y centred over the words (Kornblith et al.
    2019, arXiv:1905.00414, linear kernel); 1 for features that agree up to rotation and scale. The
    same in the words' inner products, which are fewer than the channels': with ``K = X X^T`` and
    ``L = Y Y^T`` it is ``<K, L> / (|K| |L|)``.
    """
    x, y = _centred(student), _centred(teacher)
    k, gram = x @ x.T, y @ y.T
    norms = float(k.norm() * gram.norm())
    return float((k * gram).sum()) / norms if norms else 0.0


def clustering_of(
    label: str,
    features: Sequence[Tensor],
    teacher: Sequence[Tensor],
    labels: Sequence[str],
    k: int = NEIGHBOURS,
) -> Clustering:
    """Measure a model's word features, one ``[words, D]`` a block, against its teacher's."""
    pairs = list(zip(features, teacher, strict=True))
    return Clustering(
        label=label,
        silhouette=[silhouette(ours, labels) for ours, _ in pairs],
        overlap=[neighbour_overlap(ours, theirs, k) for ours, theirs in pairs],
        cka=[linear_cka(ours, theirs) for ours, theirs in pairs],
        cka_by_chance=[_cka_by_chance(ours, theirs) for ours, theirs in pairs],
    )


def principal_plane(features: Tensor) -> Tensor:
    """Return words in the two directions of largest variance after scaling each to length 1.

    Parameters
    ----------
    features : Tensor, [words, D]

    Returns
    -------
    Tensor, [words, 2]
        Of centred features: what the cosine sees, flattened for a picture.
    """
    unit = torch.nn.functional.normalize(_centred(features), dim=1)
    _, _, directions = torch.linalg.svd(unit - unit.mean(0), full_matrices=False)
    return unit @ directions[:2].T


def _cka_by_chance(student: Tensor, teacher: Tensor) -> float:
    generator = torch.Generator().manual_seed(SEED)
    pairings = [torch.randperm(len(student), generator=generator) for _ in range(PAIRINGS)]
    return sum(linear_cka(student[order], teacher) for order in pairings) / PAIRINGS


def _centred(features: Tensor) -> Tensor:
    return features.double() - features.double().mean(0)


def _neighbours(features: Tensor, k: int) -> Tensor:
    """Mark each word's k nearest others, bool [words, words]."""
    unit = torch.nn.functional.normalize(_centred(features), dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-torch.inf)
    return torch.zeros_like(cosine, dtype=torch.bool).scatter_(1, cosine.topk(k).indices, True)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: Any = tokenizer(text, add_special_tokens=False).input_ids
    return list(ids)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two texts share at their start."""
    count = 0
    for ours, theirs in zip(one, other, strict=False):
        if ours != theirs:
            break
        count += 1
    return count


def _check_ids(model: PreTrainedModel, ids: Sequence[int]) -> None:
    vocabulary = model.get_input_embeddings().num_embeddings
    if max(ids) >= vocabulary:
        raise TernError(
            f"tokenizer must give ids below {vocabulary}, as the model has, not {max(ids)}"
        )
    context = getattr(model.config, "max_position_embeddings", None) or len(ids)
    if len(ids) > context:
        raise TernError(
            f"sentence must fit the model's context of {context} tokens, not {len(ids)}"
        )
