"""Layers of binary16 weights that try the multiply-adds: random ones, and those that break them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tern_hw.config import ArrayConfig, OutputFormat

__all__ = ["MAC_ADVERSARIAL", "MacLayer", "adversarial_mac_layer", "random_mac_layer"]

FP16_MAX = 65504.0
FP16_TINY = 2.0**-24


@dataclass(frozen=True, kw_only=True)
class MacLayer:
    """Operands of one job."""

    #: float16 [K]
    activations: NDArray[np.float16]
    #: float16 [N, K]
    weights: NDArray[np.float16]

    @property
    def n(self) -> int:
        return len(self.weights)

    @property
    def k(self) -> int:
        return self.weights.shape[1]


def random_mac_layer(rng: Generator, n: int, k: int, config: ArrayConfig) -> MacLayer:
    """Return a layer of any finite bits, or of the size that a model has."""
    if rng.integers(2):
        activations, weights = _any_finite(rng, (k,)), _any_finite(rng, (n, k))
    else:
        activations = rng.normal(0, 1, k).astype(np.float16)
        weights = rng.normal(0, 0.05, (n, k)).astype(np.float16)
    return MacLayer(activations=activations, weights=weights)


def _any_finite(rng: Generator, shape: tuple[int, ...]) -> NDArray[np.float16]:
    bits = rng.integers(0, 1 << 16, shape).astype(np.uint16)
    bits[bits & 0x7C00 == 0x7C00] &= 0x83FF
    return bits.view(np.float16)


def largest(rng: Generator, layer: MacLayer, config: ArrayConfig) -> None:
    """Sums that overflow in binary16 and come back, of either sign."""
    layer.activations[:] = FP16_MAX
    layer.weights[:] = rng.choice([-1.0, 1.0, 2.0**-12], layer.weights.shape)


def cancelling(rng: Generator, layer: MacLayer, config: ArrayConfig) -> None:
    """Every second product takes back the one before, or all but its last bit."""
    layer.activations[1::2] = layer.activations[: len(layer.activations) // 2 * 2 : 2]
    layer.weights[:, 1::2] = -layer.weights[:, : layer.k // 2 * 2 : 2]
    layer.weights[::3, -1] = np.nextafter(layer.weights[::3, -1], np.float16(0))


def subnormals(rng: Generator, layer: MacLayer, config: ArrayConfig) -> None:
    """Products and sums of a few units of the least binary16, ties among them."""
    layer.activations[:] = rng.integers(-5, 6, layer.k) / 4
    layer.weights[:] = rng.integers(-5, 6, layer.weights.shape) * FP16_TINY


def ties(rng: Generator, layer: MacLayer, config: ArrayConfig) -> None:
    """A large sum, then halves of its last place."""
    half = 2.0**-11 if config.output is OutputFormat.FP16 else 2.0**-24
    layer.activations[:] = 1
    layer.activations[1:] = half
    layer.weights[:, 0] = 1 + rng.integers(0, 1024, layer.n) / 1024
    layer.weights[:, 1:] = rng.choice([-1.0, 1.0, 0.5], (layer.n, layer.k - 1))


def zeros(rng: Generator, layer: MacLayer, config: ArrayConfig) -> None:
    """Zeros of both signs on both sides."""
    layer.activations[rng.random(layer.k) < 0.5] = -0.0
    layer.weights[rng.random(layer.weights.shape) < 0.5] = 0.0
    layer.weights[0] = -0.0


def nonfinite(rng: Generator, layer: MacLayer, config: ArrayConfig) -> None:
    """Infinities and NaN, which go where IEEE 754 sends them."""
    values = np.array([np.inf, -np.inf, np.nan, 0.0], np.float16)
    layer.activations[rng.integers(0, layer.k)] = values[rng.integers(0, 3)]
    chosen = rng.random(layer.weights.shape) < 0.1
    layer.weights[chosen] = rng.choice(values, layer.weights.shape)[chosen]


def one_bit(rng: Generator, layer: MacLayer, config: ArrayConfig) -> None:
    """One weight an output: an input or an output that is swapped shows."""
    layer.weights[:] = 0
    layer.weights[np.arange(layer.n), rng.integers(0, layer.k, layer.n)] = 1
    layer.activations[:] = np.arange(1, layer.k + 1)


#: Name -> how to bend a random layer, in place.
MAC_ADVERSARIAL: dict[str, Callable[[Generator, MacLayer, ArrayConfig], None]] = {
    bend.__name__: bend
    for bend in (largest, cancelling, subnormals, ties, zeros, nonfinite, one_bit)
}


def adversarial_mac_layer(
    name: str, rng: Generator, n: int, k: int, config: ArrayConfig
) -> MacLayer:
    """Return the named case of `MAC_ADVERSARIAL` for N outputs and K inputs."""
    layer = random_mac_layer(rng, n, k, config)
    MAC_ADVERSARIAL[name](rng, layer, config)
    return layer
