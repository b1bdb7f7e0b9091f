"""Layers and activations that try the arithmetic: random ones, and those that break it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tern_hw.config import Activation, ArrayConfig
from tern_hw.matrix import TernaryMatrix

__all__ = [
    "ADVERSARIAL",
    "Layer",
    "adversarial_layer",
    "lone_low_bits",
    "magnitudes",
    "powers_of_two",
    "random_layer",
]

#: Largest finite binary16.
FP16_MAX = 65504.0
#: Least positive binary16, a subnormal.
FP16_TINY = 2.0**-24


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Operands of one job."""

    #: int8 or float16 [K]
    activations: NDArray[Any]
    #: uint8 [N, K], 0 to 2
    digits: NDArray[np.uint8]
    #: float16 [N, groups]
    scale: NDArray[np.float16]
    shift: NDArray[np.float16]

    @property
    def n(self) -> int:
        return len(self.digits)

    @property
    def k(self) -> int:
        return self.digits.shape[1]

    def matrix(self, config: ArrayConfig) -> TernaryMatrix:
        """Return the weights as the artifact holds them; a fault has no place there."""
        return TernaryMatrix.from_digits(
            self.digits,
            self.scale,
            self.shift,
            group_size=config.group_size,
            packing=config.packing,
        )


def random_activations(rng: Generator, k: int, config: ArrayConfig) -> NDArray[Any]:
    """Return K activations over the whole range of the format: any int8, any finite binary16."""
    if config.activation is Activation.INT8:
        return rng.integers(-128, 128, k).astype(np.int8)
    return _any_finite(rng, k)


def _any_finite(rng: Generator, shape: int | tuple[int, ...]) -> NDArray[np.float16]:
    """Return binary16 of uniform bits, so that every exponent is as likely; NaN and inf aside."""
    bits = rng.integers(0, 1 << 16, shape).astype(np.uint16)
    bits[bits & 0x7C00 == 0x7C00] &= 0x83FF
    return bits.view(np.float16)


def _typical(rng: Generator, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Return scales of the size a trained model has."""
    return rng.normal(0, 0.05, shape).astype(np.float16)


def random_layer(rng: Generator, n: int, k: int, config: ArrayConfig) -> Layer:
    """Return a layer whose scales are either typical or of any exponent."""
    shape = (n, config.groups(k))
    draw = _any_finite if rng.integers(2) else _typical
    return Layer(
        activations=random_activations(rng, k, config),
        digits=rng.integers(0, 3, (n, k)).astype(np.uint8),
        scale=draw(rng, shape),
        shift=draw(rng, shape),
    )


def _outlier(config: ArrayConfig) -> float:
    return -128.0 if config.activation is Activation.INT8 else FP16_MAX


def _filled(config: ArrayConfig, k: int, value: float) -> NDArray[Any]:
    return np.full(k, value, np.int8 if config.activation is Activation.INT8 else np.float16)


def _with(layer: Layer, **changes: Any) -> Layer:
    return Layer(**{**layer.__dict__, **changes})


def _constant(layer: Layer, value: float) -> NDArray[np.float16]:
    return np.full(layer.scale.shape, value, np.float16)


def all_outliers(rng: Generator, layer: Layer, config: ArrayConfig) -> Layer:
    """Every activation at the end of its range, all trits of a row alike, the largest scales."""
    signs = np.where(np.arange(layer.n) % 2, -1, 1).astype(np.float16)[:, None]
    return _with(
        layer,
        activations=_filled(config, layer.k, _outlier(config)),
        digits=np.repeat(1 + signs.astype(np.int8), layer.k, axis=1).astype(np.uint8),
        scale=_constant(layer, FP16_MAX) * signs,
        shift=_constant(layer, FP16_MAX),
    )


def alternating_outliers(rng: Generator, layer: Layer, config: ArrayConfig) -> Layer:
    """Extremes of both signs with scales and shifts of either sign."""
    high = 127.0 if config.activation is Activation.INT8 else -FP16_MAX
    activations = _filled(config, layer.k, _outlier(config))
    activations[rng.random(layer.k) < 0.5] = high
    signs = [rng.choice([-FP16_MAX, FP16_MAX], layer.scale.shape).astype(np.float16) for _ in "ab"]
    return _with(layer, activations=activations, scale=signs[0], shift=signs[1])


def subnormal_scales(rng: Generator, layer: Layer, config: ArrayConfig) -> Layer:
    """Scales and shifts of a few units of 2**-24, with the least activations of the format."""
    units = [rng.integers(-3, 4, layer.scale.shape) * FP16_TINY for _ in "ab"]
    activations = layer.activations
    if config.activation is Activation.FP16:
        activations = (rng.integers(-5, 6, layer.k) * FP16_TINY).astype(np.float16)
    scale, shift = (part.astype(np.float16) for part in units)
    return _with(layer, activations=activations, scale=scale, shift=shift)


def cancelling(rng: Generator, layer: Layer, config: ArrayConfig) -> Layer:
    """Rows whose exact value is zero, or misses it by one unit: shift = -scale, all trits +1."""
    scale = _constant(layer, 1.0)
    scale[:] = np.where(rng.random(scale.shape) < 0.5, FP16_MAX, 1.0 / 3)
    shift = -scale
    digits = np.full_like(layer.digits, 2)
    # Every second row has one trit less, every third a shift off by its last bit.
    digits[1::2, -1] = 1
    shift[2::3] = np.nextafter(shift[2::3], np.float16(0))
    return _with(layer, digits=digits, scale=scale, shift=shift)


def ties(rng: Generator, layer: Layer, config: ArrayConfig) -> Layer:
    """Values half-way between two results, or one step of a shift beside it; the first overflows.

    A row is scale * 1 + shift * X with X of 1 or 3: the shift stands where the format (of p = 11 or
    24 bits) has its half unit, so that X decides whether the kept digit before it is odd.
    """
    activations = _filled(config, layer.k, 0)
    activations[0] = 1
    if layer.k > 1 and rng.integers(2):
        activations[-1] = 2
    digits = np.ones_like(layer.digits)
    digits[:, 0] = 2
    scale, shift = _constant(layer, 0.0), _constant(layer, 0.0)
    exponent = rng.integers(1, 16, layer.n)
    exponent[0], mantissa = 15, 1 + rng.integers(0, 1024, layer.n) / 1024
    mantissa[0] = 2047 / 1024
    half = -11 if config.result_bits == 16 else -24
    scale[:, 0] = mantissa * 2.0**exponent
    # X belongs to the last input's group as much as to the first's.
    shift[:, (0, -1)] = (2.0 ** (exponent + half) * rng.choice([-1, 1], layer.n))[:, None]
    shift[0] = np.abs(shift[0])
    beside = rng.random(layer.n) < 0.3
    toward = rng.choice([np.float16(0), np.float16(FP16_MAX)], layer.n)[:, None]
    shift[beside] = np.nextafter(shift, toward)[beside]
    return _with(layer, activations=activations, digits=digits, scale=scale, shift=shift)


def half_units(rng: Generator, layer: Layer, config: ArrayConfig) -> Layer:
    """Sums of a few halves of the least binary16: ties among subnormals, zeros of both signs."""
    activations = _filled(config, layer.k, 0)
    halves = 1 if config.activation is Activation.INT8 else 2
    few = min(layer.k, 5)
    activations[rng.permutation(layer.k)[:few]] = (rng.integers(-2, 3, few) / halves).astype(
        activations.dtype
    )
    units = [rng.integers(-2, 3, layer.scale.shape) * FP16_TINY for _ in "ab"]
    scale, shift = (part.astype(np.float16) for part in units)
    return _with(layer, activations=activations, scale=scale, shift=shift)


def zero_groups(rng: Generator, layer: Layer, config: ArrayConfig) -> Layer:
    """Groups of trits, activations, scales or shifts that are all zero."""
    digits, scale, shift = layer.digits.copy(), layer.scale.copy(), layer.shift.copy()
    activations = layer.activations.copy()
    digits[::2] = 1
    scale[rng.random(scale.shape) < 0.5] = 0
    shift[rng.random(shift.shape) < 0.5] = 0
    activations[: (layer.k + 1) // 2] = 0
    if config.activation is Activation.FP16:
        activations[0] = -0.0
    return _with(layer, activations=activations, digits=digits, scale=scale, shift=shift)


def one_bit(rng: Generator, layer: Layer, config: ArrayConfig) -> Layer:
    """One trit and one activation a row: a lane, a chunk or a row that is swapped shows."""
    digits = np.ones_like(layer.digits)
    digits[np.arange(layer.n), rng.integers(0, layer.k, layer.n)] = 2
    activations = np.arange(1, layer.k + 1) % 120
    return _with(
        layer,
        activations=activations.astype(layer.activations.dtype),
        digits=digits,
        scale=_constant(layer, 1.0),
        shift=_constant(layer, 0.0),
    )


def magnitudes(rng: Generator, layer: Layer, config: ArrayConfig) -> Layer:
    """Row n is about 2**(n - 24) or, with K at its largest, about K * 2**(n - 17)."""
    largest = 1 if layer.k < 2 * config.lanes else 127
    mantissa = 1 + rng.integers(0, 1024, layer.n) / 1024
    # Below the normal numbers the mantissa's bits are cut off.
    scale = _constant(layer, 0.0)
    scale[:] = (mantissa * 2.0 ** np.minimum(np.arange(layer.n) - 24, 14))[:, None]
    signs = rng.choice([-1, 1], layer.n)
    return _with(
        layer,
        activations=_filled(config, layer.k, largest),
        digits=np.repeat(1 + signs[:, None], layer.k, axis=1).astype(np.uint8),
        scale=scale,
        shift=_constant(layer, 0.0),
    )


def powers_of_two(rng: Generator, layer: Layer, config: ArrayConfig) -> Layer:
    """Row n is 2**(n - 24), or with fp16 activations 2**(n - 40), of either sign: one bit alone."""
    least = -40 if config.activation is Activation.FP16 else -24
    # An input for what a scale reaches, one for more, one for less.
    inputs = (1.0, 64.0, FP16_TINY if config.activation is Activation.FP16 else 0.0)[: layer.k]
    activations = _filled(config, layer.k, 0)
    activations[: len(inputs)] = inputs
    digits = np.ones_like(layer.digits)
    scale = _constant(layer, 0.0)
    for row in range(layer.n):
        power = least + row
        chosen = 0 if -24 <= power <= 15 else 1 if power > 15 else 2
        chosen = min(chosen, len(inputs) - 1)
        digits[row, chosen] = 0 if row % 2 else 2
        scale[row] = 2.0 ** np.clip(power - (0, 6, -24)[chosen], -24, 15)
    return _with(
        layer, activations=activations, digits=digits, scale=scale, shift=_constant(layer, 0.0)
    )


#: Places of a bit from 2**5 to the least that a shift has, 2**-24.
PLACES = 30


def lone_low_bits(rng: Generator, layer: Layer, config: ArrayConfig) -> Layer:
    """Row n is an odd integer of up to 25 bits times 2**5, and one bit n % 30 places lower.

    The odd integer is scale * S, of a scale with 11 bits. The low bit is the shift, for X is 1 in
    the last group: activations of both signs cancel each other, with trits that make S large.
    """
    activations = _filled(config, layer.k, 0)
    pairs = (layer.k - 1) // 2 * 2
    activations[:pairs:2], activations[1:pairs:2] = 127, -127
    activations[-1] = 1
    digits = np.ones_like(layer.digits)
    digits[:, :pairs:2], digits[:, 1:pairs:2] = 2, 0
    # The first rows are ties but for the low bit, which alone decides; the others are anything.
    anything = np.arange(layer.n) >= PLACES
    digits[:, -1] = np.where(anything, rng.choice([0, 2], layer.n), 2)
    shift = _constant(layer, 0.0)
    low = 2.0 ** (5.0 - np.arange(layer.n) % PLACES)
    shift[:, -1] = np.where(anything, low * rng.choice([-1, 1], layer.n), low)
    return _with(
        layer,
        activations=activations,
        digits=digits,
        scale=_constant(layer, 2047.0 * 2**5),
        shift=shift,
    )


#: Name -> how to bend a random layer.
ADVERSARIAL: dict[str, Callable[[Generator, Layer, ArrayConfig], Layer]] = {
    bend.__name__: bend
    for bend in (
        all_outliers,
        alternating_outliers,
        subnormal_scales,
        cancelling,
        ties,
        half_units,
        zero_groups,
        one_bit,
    )
}


def adversarial_layer(name: str, rng: Generator, n: int, k: int, config: ArrayConfig) -> Layer:
    """Return the named case of `ADVERSARIAL` for N outputs and K inputs."""
    return ADVERSARIAL[name](rng, random_layer(rng, n, k, config), config)
