"""Blocks on several threads: each computed once, the bits the same, and no error lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tern_hw.reference import matmul, threads
from tests.layers import random_activations, random_layer


@given(st.integers(1, 40), st.integers(0, 1 << 26), st.integers(1, 9))
def test_every_block_is_computed_once(blocks, products, cores):
    ranges: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "_cores", lambda: cores)
        threads.over_blocks(blocks, products, lambda first, last: ranges.append((first, last)))
    assert sorted(at for first, last in ranges for at in range(first, last)) == list(range(blocks))
    assert len(ranges) <= max(1, min(cores, products // threads.PRODUCTS_PER_THREAD))


@pytest.mark.parametrize("kind", ["int8", "normal"])
def test_threads_do_not_change_a_bit(monkeypatch, kind):
    rng = np.random.default_rng(41)
    matrix, _ = random_layer(rng, 900, 100, 32)
    x = random_activations(rng, (3, 100), kind)
    monkeypatch.setattr(threads, "PRODUCTS_PER_THREAD", 1)
    outputs = []
    for cores in (1, 4):
        monkeypatch.setattr(threads, "_cores", lambda cores=cores: cores)
        outputs.append(matmul(x, matrix).tobytes())
    assert outputs[0] == outputs[1]


def test_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(threads, "_cores", lambda: 2)

    def fail(first, last):
        if first:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        threads.over_blocks(2, 1 << 30, fail)
