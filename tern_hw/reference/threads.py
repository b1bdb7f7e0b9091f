"""Blocks of rows on several threads: the compiled kernels hold no lock, and share nothing."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final

__all__ = ["over_blocks"]

#: Digit products that are worth a thread: about 0.1 ms of work.
PRODUCTS_PER_THREAD: Final = 1 << 22


def over_blocks(blocks: int, products: int, work: Callable[[int, int], None]) -> None:
    """Call work(first, last) for ranges that cut `blocks`, in parallel where that pays.

    Parameters
    ----------
    blocks : int
        Blocks of rows.
    products : int
        Digit products of all blocks together.
    work : callable
        Computes the blocks from first up to last; must release the interpreter's lock to gain.
    """
    count = max(1, min(_cores(), blocks, products // PRODUCTS_PER_THREAD))
    edges = [blocks * part // count for part in range(count + 1)]
    others = [_pool().submit(work, *edges[part : part + 2]) for part in range(1, count)]
    work(*edges[:2])
    for other in others:
        other.result()


@cache
def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _cores() - 1), thread_name_prefix="tern-reference")
