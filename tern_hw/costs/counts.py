"""How often everything happens in a matrix product on a ternary array, in exact integers."""

import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from tern_hw.config import ArrayConfig, weight_window_cycles
from tern_hw.costs.actions import (
    Action,
    activation_word,
    check_counted,
    group_end,
    lane_mask,
    memory_register,
    result,
    row_step,
    scale_beat,
    sum_word,
    weight_beat,
)
from tern_hw.costs.loading import load_chunk, unit_word, waiting_word
from tern_hw.errors import TernError

__all__ = ["MAX_TOKENS", "Counts", "count_matmul"]

#: Most tokens of a product: beyond, a figure says nothing any more.
MAX_TOKENS = 1 << 30


@dataclass(frozen=True)
class Counts:
    """Counts of [M, K] x [K, N] on an array: M jobs, each of one token.

    Beats, bytes and cycles are those of the ports of the emitted Verilog, padding included:
    they compare with its counters. Actions are of the data path (`tern_hw.costs.actions`);
    the sequencer and the tags beside the data are not counted.
    """

    m: int
    n: int
    k: int
    #: Cycles of all jobs when no stream stalls (`ArrayConfig.job_cycles`).
    cycles: int
    #: Cycles of one job in which weights and scales are taken, when none is late.
    weight_window_cycles: int
    #: Steps (cycles with work) of all jobs: while activations load, and with weights.
    load_steps: int
    compute_steps: int
    activation_beats: int
    weight_beats: int
    scale_beats: int
    result_beats: int
    activation_bytes: int
    weight_bytes: int
    scale_bytes: int
    result_bytes: int
    #: Sums over a group that reach a scale, padding rows included.
    group_sums: int
    #: How often each action is done.
    actions: dict[Action, int]

    @property
    def macs(self) -> int:
        """Multiply-accumulates that the product has; padding is not among them."""
        return self.m * self.n * self.k

    @property
    def streamed_bytes(self) -> int:
        """Bytes that the memory of weights must deliver: weights, scales and shifts."""
        return self.weight_bytes + self.scale_bytes

    @property
    def bits_per_weight(self) -> Fraction:
        """Streamed bits a weight, scales, shifts and padding included."""
        return Fraction(8 * self.streamed_bytes, self.macs)

    @property
    def needed_bytes_per_cycle(self) -> Fraction:
        """Bandwidth at which the array does not wait for weights."""
        return Fraction(self.streamed_bytes, self.m * self.weight_window_cycles)

    @property
    def adds_by_bits(self) -> dict[int, int]:
        """Adds by the width of their sum."""
        widths: Counter[int] = Counter()
        for action, count in self.actions.items():
            if action.component == "add":
                widths[action.bits] += count
        return dict(sorted(widths.items()))

    @property
    def mean_tree_bits(self) -> Fraction:
        """Mean width of the adds whose operands trits decide: the tree's and the group sum's."""
        below = {action: count for action, count in self.actions.items() if action.lanes}
        total = sum(action.bits * count for action, count in below.items())
        return Fraction(total, sum(below.values())) if below else Fraction(0)

    def stall_cycles(self, bytes_per_cycle: Fraction | None) -> int:
        """Return the cycles that all jobs wait for a memory that gives so many bytes a cycle.

        A job's bytes are spread over its window by FIFOs of any depth, so only the mean counts;
        None is a memory that is never late.
        """
        if bytes_per_cycle is None:
            return 0
        needed = math.ceil(Fraction(self.streamed_bytes, self.m) / bytes_per_cycle)
        return self.m * max(0, needed - self.weight_window_cycles)


@lru_cache(maxsize=4096)
def count_matmul(config: ArrayConfig, m: int, n: int, k: int) -> Counts:
    """Count a product of M tokens with an [N, K] weight on an array.

    Parameters
    ----------
    config : ArrayConfig
    m : int
        Tokens: as many jobs, each of which streams all weights.
    n, k : int
        Outputs and inputs of the weight; at most the array's max_n and max_k.

    Raises
    ------
    TernError
        If a dimension is out of range, or the array is of a kind whose actions are not counted.
    """
    check_shape(config, m, n, k)
    steps, chunks, groups = config.steps(k), config.chunks(k), config.groups(k)
    blocks = config.row_blocks(n)
    ends = blocks * groups
    aligned = config.aligned is not None
    actions: Counter[Action] = Counter()
    for part, times in (
        (row_step(config), config.rows * (1 + blocks) * steps),
        (lane_mask(config), (1 + blocks) * steps),
        (group_end(config), config.rows * ends),
        (result(config), n),
        (load_chunk(config), chunks),
        (scale_beat(config), ends),
        (weight_beat(config), blocks * chunks),
        ({activation_word(config, "read"): 1}, (1 + blocks) * steps),
        (memory_register(config), (1 + blocks) * steps),
        ({waiting_word(config, "read"): 1}, chunks if aligned else 0),
        # A word's units where it is aligned, and a group's where it is scaled.
        ({unit_word(config, "read"): 1}, chunks + ends if aligned else 0),
        ({sum_word(config, "write"): 1}, groups),
        ({sum_word(config, "read"): 1}, ends),
    ):
        for action, count in part.items():
            actions[action] += m * times * count
    return Counts(
        m=m,
        n=n,
        k=k,
        cycles=m * config.job_cycles(n, k),
        weight_window_cycles=weight_window_cycles(config, n, k),
        load_steps=m * steps,
        compute_steps=m * blocks * steps,
        activation_beats=m * chunks,
        weight_beats=m * blocks * chunks,
        scale_beats=m * ends,
        result_beats=m * n,
        activation_bytes=m * chunks * config.activation_beat_bytes,
        weight_bytes=m * blocks * chunks * config.weight_beat_bytes,
        scale_bytes=m * ends * config.scale_beat_bytes,
        result_bytes=m * n * config.result_beat_bytes,
        group_sums=m * ends * config.rows,
        actions=dict(actions),
    )


def check_shape(config: ArrayConfig, m: int, n: int, k: int) -> None:
    """Refuse a product that the array cannot do, or an array that is not counted."""
    check_counted(config)
    for name, value, high in (
        ("m (tokens)", m, MAX_TOKENS),
        ("n (outputs)", n, config.max_n),
        ("k (inputs)", k, config.max_k),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
            raise TernError(f"{name} must be an integer from 1 to {high}, not {value!r}")
