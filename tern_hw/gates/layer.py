"""The layer that is computed: ternary, not ternary, and what enters it; seeded or real."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tern_hw.config import Activation, ArrayConfig
from tern_hw.errors import TernError
from tern_hw.matrix import TernaryMatrix
from tern_hw.reference import quantize_tokens

__all__ = ["Layer", "random_layer"]

#: Standard deviation of random weights: small models' are near 1 / sqrt(K) of a few hundred.
WEIGHT_DEVIATION = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One linear layer in both forms, and tokens that enter it.

    Raises
    ------
    TernError
        If the shapes do not fit each other, or a binary16 overflows.
    """

    matrix: TernaryMatrix
    #: The weights before they became ternary, float16 [N, K].
    weight: NDArray[np.float16]
    #: Tokens, float32 [M, K].
    tokens: NDArray[np.float32]
    #: Where it comes from, in a few words.
    origin: str

    def __post_init__(self) -> None:
        n, k = self.matrix.shape
        if self.weight.shape != (n, k):
            raise TernError(f"weights must be of shape [{n}, {k}], not {[*self.weight.shape]}")
        if self.tokens.ndim != 2 or self.tokens.shape[1] != k:
            raise TernError(f"activations must be [M, {k}], not {[*self.tokens.shape]}")
        if not np.isfinite(self.weight).all() or not np.isfinite(self.half_tokens()).all():
            raise TernError("weights and activations must be finite in float16")

    def half_tokens(self) -> NDArray[np.float16]:
        """Return the tokens in binary16, rounded to nearest even."""
        with np.errstate(over="ignore", under="ignore"):
            return self.tokens.astype(np.float16)

    def activations(self, activation: Activation) -> NDArray[Any]:
        """Return the tokens in an array's format, [M, K]."""
        if activation is Activation.INT8:
            return quantize_tokens(self.tokens)[0]
        return self.half_tokens()

    def some_rows(self, count: int) -> "Layer":
        """Return so many rows, evenly spaced over the layer."""
        n, _ = self.matrix.shape
        if not 1 <= count <= n:
            raise TernError(f"rows must be from 1 to the layer's {n}, not {count}")
        chosen = np.arange(count) * n // count
        matrix = TernaryMatrix(
            packed=self.matrix.packed[chosen],
            scale=self.matrix.scale[chosen],
            shift=self.matrix.shift[chosen],
            in_features=self.matrix.in_features,
            group_size=self.matrix.group_size,
            packing=self.matrix.packing,
            name=self.matrix.name,
        )
        return Layer(
            matrix=matrix, weight=self.weight[chosen], tokens=self.tokens, origin=self.origin
        )

    @property
    def zeros(self) -> float:
        """Share of trits that are 0."""
        return float((self.matrix.digits() == 1).mean())


def random_layer(
    seed: int, n: int, k: int, tokens: int, config: ArrayConfig, *, zeros: float
) -> Layer:
    """Return a seeded layer: normal weights and tokens, trits by a threshold on the weights.

    Parameters
    ----------
    zeros
        Share of trits that are 0, from 0 to 1; the sign of the others is the weight's.
    """
    if not 0 <= zeros <= 1:
        raise TernError(f"zeros must be from 0 to 1, not {zeros}")
    for name, value in (("rows", n), ("inputs", k), ("tokens", tokens)):
        if value < 1:
            raise TernError(f"{name} must be from 1, not {value}")
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, WEIGHT_DEVIATION, (n, k))
    trits = np.where(np.abs(weight) > np.quantile(np.abs(weight), zeros), np.sign(weight), 0)
    groups = config.groups(k)
    kept = np.abs(weight[trits != 0])
    level = kept.mean() if kept.size else WEIGHT_DEVIATION
    matrix = TernaryMatrix.from_digits(
        (trits + 1).astype(np.uint8),
        rng.normal(level, level / 10, (n, groups)).astype(np.float16),
        rng.normal(0, level / 10, (n, groups)).astype(np.float16),
        group_size=config.group_size,
        packing=config.packing,
    )
    return Layer(
        matrix=matrix,
        weight=weight.astype(np.float16),
        tokens=rng.normal(0, 1, (tokens, k)).astype(np.float32),
        origin=f"random, seed {seed}, normal activations",
    )
