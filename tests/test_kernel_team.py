"""Kernels on several threads: each block once, the same bits, whoever calls and whatever forks."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import carray, types

from tern_hw import kernels
from tern_hw.kernels import product, team
from tern_hw.kernels.atomics import fetch_add, pointer
from tests.kernels import WAYS, trained_layer
from tests.layers import random_activations

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not WAYS, reason="this processor has no kernels")


@numba.cfunc(types.void(types.CPointer(types.int64), types.int64, types.int64))
def count(job, first, last):
    """Count each block's calls, and those of each range."""
    blocks = carray(pointer(job[0]), (job[1],), np.int64)
    for block in range(first, last):
        fetch_add(blocks, block, 1)


def counted(blocks, threads):
    counts = np.zeros(blocks, np.int64)
    team.run_job(count.address, np.array([counts.ctypes.data, blocks]), blocks, threads)
    return counts


@settings(max_examples=200)
@given(st.integers(1, 3000), st.integers(1, 4))
def test_every_block_once(blocks, threads):
    assert (counted(blocks, threads) == 1).all()


@numba.cfunc(types.void(types.CPointer(types.int64), types.int64, types.int64))
def note_length(job, first, last):
    """Count the ranges of each length."""
    fetch_add(carray(pointer(job[0]), (job[1],), np.int64), last - first, 1)


@pytest.mark.parametrize(
    ("blocks", "threads", "lengths"),
    [
        (128, 2, [64, 32, 16, 8, 4, 2, 1, 1]),
        (9, 3, [3, 2, 1, 1, 1, 1]),
        (1, 2, [1]),
        (50, 1, [50]),
    ],
)
def test_each_takes_its_share_of_what_is_left(blocks, threads, lengths):
    """Memory is read in long runs, and the last ones are short: whoever takes them."""
    counts = np.zeros(blocks + 1, np.int64)
    job = np.array([counts.ctypes.data, len(counts)])
    team.run_job(note_length.address, job, blocks, threads)
    assert counts.tolist() == [lengths.count(length) for length in range(blocks + 1)]


@numba.cfunc(types.void(types.CPointer(types.int64), types.int64, types.int64))
def meet(job, first, last):
    """Say that a block has begun, and wait for the other one; note whether it came."""
    blocks = carray(pointer(job[0]), (4,), np.int64)
    for block in range(first, last):
        fetch_add(blocks, block, 1)
        for _ in range(job[1]):
            if fetch_add(blocks, 1 - block, 0):
                fetch_add(blocks, 2 + block, 1)
                break


def met(looks=1 << 30):
    """Two blocks, that each waits for: what they noted, all 1 where two threads did them."""
    blocks = np.zeros(4, np.int64)
    team.run_job(meet.address, np.array([blocks.ctypes.data, looks]), 2, 2)
    return blocks.tolist()


def test_a_helper_works_beside_the_caller():
    for pause in (0, 0.3):  # the second time it sleeps, and must be woken
        time.sleep(pause)
        assert met() == [1, 1, 1, 1]


def test_helpers_wake_after_they_slept():
    for pause in (0, 0.001, 0.01, 0.05):
        for _ in range(5):
            assert (counted(500, 3) == 1).all()
            time.sleep(pause)
    # Without work all go to sleep: nobody watches.
    end = time.monotonic() + 30
    while any(each.state[team.AWAKE] for each in team._teams.values()):
        assert time.monotonic() < end
        time.sleep(0.01)


def products(matrix, repacked, x, threads=2):
    return kernels.matmul(x, repacked, threads=threads).tobytes()


@pytest.fixture
def operands(monkeypatch):
    monkeypatch.setattr(product, "PRODUCTS_PER_THREAD", 1)
    rng = np.random.default_rng(71)
    matrix = trained_layer(rng, 900, 300, 64)
    return matrix, kernels.repack(matrix), random_activations(rng, (9, 300), "int8")


def test_threads_do_not_change_a_bit(operands):
    outputs = {products(*operands, threads=threads) for threads in (1, 2, 3, 4)}
    assert len(outputs) == 1


def test_eight_threads_call_at_once(operands):
    wanted = products(*operands, threads=1)
    results = []

    def call():
        results.extend(products(*operands) == wanted for _ in range(50))

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == [True] * 400


def test_forks_after_use(operands):
    wanted = products(*operands)
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        # The children's own children, too.
        answers = pool.starmap_async(products, [operands] * 20)
        assert answers.get(timeout=60) == [wanted] * 20
    assert products(*operands) == wanted


def test_a_fork_amid_a_job_leaves_the_child_a_team_of_its_own():
    with team._turn:
        child = os.fork()
        if child == 0:
            os._exit(0 if met() == [1, 1, 1, 1] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


#: A product on two threads, with the compiled functions' folder read-only; prints the sum.
PROGRAM = """
import numpy as np
from tern_hw import kernels
from tern_hw.kernels import product
from tests.kernels import trained_layer
product.PRODUCTS_PER_THREAD = 1
matrix = trained_layer(np.random.default_rng(1), 300, 200, 64)
x = np.random.default_rng(2).integers(-127, 128, (3, 200)).astype(np.int8)
for _ in range(20):
    result = kernels.matmul(x, kernels.repack(matrix), threads=2)
print(result.tobytes().hex())
"""


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | {"NUMBA_CACHE_DIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_fill_one_cache(tmp_path):
    both = [start(tmp_path) for _ in range(2)]
    printed = [each.communicate(timeout=250) for each in both]
    assert [each.returncode for each in both] == [0, 0], printed
    assert printed[0][0] == printed[1][0] != ""
    assert any(tmp_path.rglob("*.nbc"))


def test_a_folder_that_cannot_be_written(tmp_path):
    # Not a folder at all: that stops root, too.
    (tmp_path / "cache").write_text("in the way")
    process = start(tmp_path / "cache")
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    assert out
