"""Operands and oracles of the multiply-add: where errors hide, and two answers to compare with."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tern_hw import reference
from tern_hw.config import OutputFormat
from tern_hw.gateware.fp16_model import FORMATS, FloatFormat, multiply_add

__all__ = [
    "by_float64",
    "crossed",
    "exact",
    "exponent_pairs",
    "numbers",
    "operands",
    "specials",
]

Bits = NDArray[np.uint32]


def specials(form: FloatFormat) -> list[int]:
    """Return both signs of a format's corners: zeros, least and largest of each kind, NaNs."""
    top = form.precision - 1
    one = (1 << (form.exponent_bits - 1)) - 1 << top
    positive = [
        *(0, 1, 2, 3, (1 << top) - 1, 1 << top, (1 << top) + 1, (2 << top) - 1, 2 << top),
        *(one - 1, one, one + 1, one + (1 << top), one + (1 << top - 1)),
        *(form.infinity - 1, form.infinity - 2, form.infinity - (1 << top)),
        *(form.infinity, form.infinity + 1, form.nan, form.nan + 1, (1 << form.bits - 1) - 1),
    ]
    return [value | sign << form.bits - 1 for sign in (0, 1) for value in positive]


def crossed(form: FloatFormat) -> tuple[Bits, Bits, Bits]:
    """Return every triple of special values."""
    half = specials(FORMATS[OutputFormat.FP16])
    grids = np.meshgrid(half, half, specials(form), indexing="ij")
    a, b, c = (grid.ravel().astype(np.uint32) for grid in grids)
    return a, b, c


def exponent_pairs(rng: Generator, form: FloatFormat, draws: int) -> tuple[Bits, Bits, Bits]:
    """Return every pair of exponent fields with every sign, random fractions, draws times each.

    The accumulator is in the product's reach.
    """
    grids = np.meshgrid(range(32), range(32), (0, 1), (0, 1), range(draws), indexing="ij")
    field_a, field_b, sign_a, sign_b, _ = (grid.ravel() for grid in grids)
    a, b = (
        (sign << 15 | field << 10 | rng.integers(0, 1024, len(field))).astype(np.uint32)
        for sign, field in ((sign_a, field_a), (sign_b, field_b))
    )
    return a, b, _reached(rng, a, b, form)


def numbers(bits: Bits, form: FloatFormat) -> NDArray[Any]:
    """Return bits as numpy's floats of their format."""
    if form.bits == 16:
        return bits.astype(np.uint16).view(np.float16)
    return bits.astype(np.uint32).view(np.float32)


def by_float64(a: Bits, b: Bits, c: Bits, form: FloatFormat) -> Bits:
    """Return a * b + c by the reference, which knows no integers: the processor's binary64."""
    half = FORMATS[OutputFormat.FP16]
    result = reference.multiply_add(numbers(a, half), numbers(b, half), numbers(c, form))
    return result.view(np.uint16 if form.bits == 16 else np.uint32).astype(np.uint32)


def exact(a: Bits, b: Bits, c: Bits, form: FloatFormat) -> Bits:
    """Return a * b + c by exact integer arithmetic, one by one."""
    triples = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    return np.fromiter((multiply_add(*triple, form) for triple in triples), np.uint32, len(a))


def operands(rng: Generator, count: int, form: FloatFormat) -> tuple[Bits, Bits, Bits]:
    """Return random operands of four kinds, a quarter each.

    Any bits; an accumulator near minus the product, up to a few units of its last place, so that
    the sum cancels; an accumulator of any significand in the product's reach; and few significant
    bits on every side, so that sums are ties.
    """
    parts = [kind(rng, count // 4 + 1, form) for kind in (_any, _cancelling, _near, _ties)]
    a, b, c = (np.concatenate(columns)[:count] for columns in zip(*parts, strict=True))
    order = rng.permutation(count)
    return a[order], b[order], c[order]


def _any(rng: Generator, count: int, form: FloatFormat) -> Iterator[Bits]:
    for bits in (16, 16, form.bits):
        yield rng.integers(0, 1 << bits, count).astype(np.uint32)


def _halves(rng: Generator, count: int, mask: int = 0x3FF) -> Bits:
    """Return finite binary16 of uniform exponent, subnormals among them."""
    field = rng.integers(0, 31, count) << 10
    return (
        (rng.integers(0, 2, count) << 15) | field | (rng.integers(0, 1024, count) & mask)
    ).astype(np.uint32)


def _product(a: Bits, b: Bits, form: FloatFormat) -> Bits:
    return by_float64(a, b, np.zeros_like(a), form)


def _cancelling(rng: Generator, count: int, form: FloatFormat) -> Iterator[Bits]:
    a, b = _halves(rng, count), _halves(rng, count)
    c = _product(a, b, form) ^ np.uint32(1 << form.bits - 1)
    yield from (a, b, (c + rng.integers(-3, 4, count)).astype(np.uint32) & _mask(form))


def _near(rng: Generator, count: int, form: FloatFormat) -> Iterator[Bits]:
    a, b = _halves(rng, count), _halves(rng, count)
    yield from (a, b, _reached(rng, a, b, form))


def _reached(rng: Generator, a: Bits, b: Bits, form: FloatFormat) -> Bits:
    """Return accumulators of any sign and significand whose exponents are near the products'."""
    count, reach = len(a), form.precision + 24
    distance = rng.integers(-reach, reach + 1, count)
    field = (_product(a, b, form) >> form.precision - 1) & ((1 << form.exponent_bits) - 1)
    field = np.clip(field.astype(np.int64) + distance, 0, (1 << form.exponent_bits) - 2)
    fraction = rng.integers(0, 1 << form.precision - 1, count)
    # Long runs of ones and zeros carry far.
    run = rng.integers(0, form.precision, count)
    fraction = np.where(rng.random(count) < 0.3, fraction >> run << run, fraction)
    fraction = np.where(rng.random(count) < 0.3, fraction | (1 << run) - 1, fraction)
    fraction &= (1 << form.precision - 1) - 1
    sign = rng.integers(0, 2, count) << form.bits - 1
    return (sign | field << form.precision - 1 | fraction).astype(np.uint32)


def _ties(rng: Generator, count: int, form: FloatFormat) -> Iterator[Bits]:
    a, b = _halves(rng, count, 0x300), _halves(rng, count, 0x380)
    c = _reached(rng, a, b, form)
    yield from (
        a,
        b,
        c & ~np.uint32((1 << form.precision // 2) - 1)
        | rng.integers(0, 4, count).astype(np.uint32),
    )


def _mask(form: FloatFormat) -> np.uint32:
    return np.uint32((1 << form.bits) - 1)
