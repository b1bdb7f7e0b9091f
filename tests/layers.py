"""Random and adversarial layers for the reference's tests, all in exact types."""

import numpy as np

from tern_hw.matrix import TernaryMatrix, group_count

#: binary16 values at the edges of the format, both signs.
EDGES = np.array(
    [0, -0.0, 2**-24, -(2**-24), 1023 * 2**-24, 2**-14, 65504, -65504, 65472, 1, -1, 1 / 3],
    np.float16,
)


def random_fp16(rng, shape, kind):
    """Return finite float16: "any" bit pattern, "normal", "subnormal", "edges" or "large"."""
    if kind == "normal":
        return rng.normal(size=shape).astype(np.float16)
    if kind == "edges":
        return rng.choice(EDGES, shape)
    if kind == "large":
        return (rng.choice([-1, 1], shape) * 65504).astype(np.float16)
    high = {"any": 0x7C00, "subnormal": 0x400}[kind]
    bits = rng.integers(0, high, shape) | rng.choice([0, 0x8000], shape)
    return bits.astype(np.uint16).view(np.float16)


def random_activations(rng, shape, kind):
    """Return int8 for the kinds "int8" and "least" (all -128), else float16 of that kind."""
    if kind == "int8":
        return rng.integers(-128, 128, shape).astype(np.int8)
    if kind == "least":
        return np.full(shape, -128, np.int8)
    return random_fp16(rng, shape, kind)


def random_layer(rng, n, k, group_size, kind="normal", packing="2bit"):
    """Return (matrix, trits): the same trits as the oracle reads them."""
    digits = rng.integers(0, 3, (n, k), dtype=np.uint8)
    scale, shift = random_fp16(rng, (2, n, group_count(k, group_size)), kind)
    return layer(digits.astype(int) - 1, scale, shift, group_size, packing)


def layer(trits, scale, shift, group_size="row", packing="2bit"):
    """Return (matrix, trits) from lists or arrays of trits, scales and shifts."""
    trits = np.array(trits)
    matrix = TernaryMatrix.from_digits(
        (trits + 1).astype(np.uint8),
        np.array(scale, np.float16),
        np.array(shift, np.float16),
        group_size=group_size,
        packing=packing,
    )
    return matrix, trits
