"""When a job's steps are issued while no stream stalls: cycles of a row block, and of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tern_hw.config.array import ArrayConfig

__all__ = ["job_cycles", "weight_window_cycles"]


def _block_cycles(config: ArrayConfig, k: int) -> int:
    """Return the cycles of a row block's steps: one each, one more where the last must wait."""
    steps = config.steps(k)
    return steps + (steps > 1 and _ends_twice(config, steps))


def _block_interval(config: ArrayConfig, k: int) -> int:
    """Return the cycles from one row block's last step to the next one's."""
    steps = config.steps(k)
    return max(steps + _ends_twice(config, steps), config.result_interval)


def _ends_twice(config: ArrayConfig, steps: int) -> bool:
    """Tell whether a row's last group is a single step, behind one that ends a group as well.

    Where products are computed in turn, groups end at most every other cycle.
    """
    if config.products == 2:
        return False
    return steps == 1 if config.group_steps is None else steps % config.group_steps == 1


def weight_window_cycles(config: ArrayConfig, n: int, k: int) -> int:
    """Return the cycles from a job's first weight beat to its last, both counted."""
    return _block_cycles(config, k) + (config.row_blocks(n) - 1) * _block_interval(config, k)


def job_cycles(config: ArrayConfig, n: int, k: int) -> int:
    """Return the cycles of one job of N outputs over K inputs.

    From the accepted start to the last result's transfer: load, gap, one interval a row block, and
    the way of the last results. Activations that are aligned pass once more, when their groups'
    units are known.
    """
    last_rows = n - (config.row_blocks(n) - 1) * config.block_outputs
    find = 0 if config.aligned is None else config.steps(k) + config.unit_cycles
    load = find + config.load_cycles(k) + config.load_gap_cycles
    return load + weight_window_cycles(config, n, k) + config.latency_cycles + last_rows - 1
