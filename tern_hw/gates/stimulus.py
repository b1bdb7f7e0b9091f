"""What enters a block when a layer is computed: the ternary dot product's inputs, and a MAC's.

A stream is one token through some rows of the layer, one row after the other, as the array takes
them: the activations come again for every row. A token and a share of the rows make one stream,
so that 64 of them fill a word of the simulator.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.config import FP16_FRACTION_BITS, Activation, ArrayConfig
from tern_hw.errors import TernError
from tern_hw.gates.fused import running_sums
from tern_hw.gates.simulator import Stimulus
from tern_hw.packing import PAD_DIGIT, pack

__all__ = ["Work", "dot_work", "fixed_activations", "mac_work", "scale_work"]

#: Cycles that are not counted beyond a block's own latency.
SPARE_CYCLES: Final = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """Inputs of a block over time, and how much of the layer they compute."""

    stimulus: Stimulus
    #: Cycles until the block's registers hold only what belongs to the work.
    warm_up: int
    #: Weights times activations in a cycle, padding not counted.
    macs_per_cycle: float
    #: What the block must show in the end, [streams, cycles], at its output `latency` cycles late.
    expected: NDArray[np.int64]
    latency: int


def fixed_activations(x: NDArray[Any]) -> NDArray[np.int64]:
    """Return int8 or finite float16 activations as the integers that the data path adds."""
    if x.dtype == np.float16:
        return (x.astype(np.float64) * 2.0**FP16_FRACTION_BITS).astype(np.int64)
    return x.astype(np.int64)


def _as_in_memory(values: NDArray[np.int64], config: ArrayConfig) -> NDArray[np.int64]:
    """Return integers as the array's memory holds them: those of binary16 as sign and magnitude."""
    if config.activation is Activation.INT8:
        return values
    return np.abs(values) | (values < 0).astype(np.int64) << (config.fixed_bits - 1)


def _streams(rows: NDArray[Any], tokens: NDArray[Any], parts: int) -> tuple[Any, Any]:
    """Pair every share of the rows with every token: [parts * M, R, ...] and [parts * M, ...]."""
    if len(rows) % parts:
        raise TernError(f"rows must be a multiple of {parts}, not {len(rows)}")
    shares = rows.reshape(parts, len(rows) // parts, *rows.shape[1:])
    return np.repeat(shares, len(tokens), axis=0), np.tile(
        tokens, (parts, *(1,) * (tokens.ndim - 1))
    )


def _late(array: NDArray[Any], cycles: int) -> NDArray[Any]:
    """Return the array as it comes so many cycles later; its end falls out."""
    if not cycles:
        return array
    return np.concatenate([np.zeros_like(array[:, :cycles]), array[:, :-cycles]], axis=1)


def dot_work(
    config: ArrayConfig, digits: NDArray[np.uint8], x: NDArray[Any], *, parts: int
) -> Work:
    """Return the inputs of one row's `GroupDot` while rows are computed for tokens.

    Parameters
    ----------
    config
        Its group is a multiple of the lanes, or the row.
    digits : uint8 [N, K]
        Trits + 1.
    x : int8 or float16 [M, K]
        Activations in the array's format.
    parts
        Shares that the rows are cut into; M * parts streams.
    """
    if config.segments > 1:
        raise TernError(f"group_size must be at least the lanes here, not {config.group_size}")
    n, k = digits.shape
    steps = config.steps(k)
    wide = np.full((n, steps * config.lanes), PAD_DIGIT, np.uint8)
    wide[:, :k] = digits
    real = np.zeros((len(x), steps * config.lanes), np.int64)
    real[:, :k] = fixed_activations(x)
    rows, tokens = _streams(
        wide.reshape(n, steps, config.lanes), real.reshape(-1, steps, config.lanes), parts
    )
    streams, count = rows.shape[:2]
    trits = rows.reshape(streams, count * steps, config.lanes)
    values = np.tile(tokens, (1, count, 1))
    last = np.tile(_group_ends(config, steps), (streams, count))[..., None]
    ones = np.ones_like(last)
    sums = ((trits.astype(np.int64) - 1) * values).sum(axis=2)
    late = config.decode_cycles + config.operand_cycles + config.tree_levels
    return Work(
        stimulus={
            "codes": pack(trits, config.packing),
            "mask": np.ones((*trits.shape[:2], config.lanes), np.int64),
            "x": _late(_as_in_memory(values, config), config.memory_cycles),
            "valid": _late(ones, late),
            "last": _late(last, late),
        },
        warm_up=late + 1 + SPARE_CYCLES,
        macs_per_cycle=k / steps,
        expected=_sums_in_groups(sums, last[..., 0]),
        latency=late + 1,
    )


def _group_ends(config: ArrayConfig, steps: int) -> NDArray[np.int64]:
    size = config.group_steps or steps
    ends = np.zeros(steps, np.int64)
    ends[size - 1 :: size] = 1
    ends[-1] = 1
    return ends


def _sums_in_groups(sums: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return running sums that begin anew after `last` is 1."""
    total = np.zeros_like(sums)
    before = np.zeros(len(sums), np.int64)
    for step in range(sums.shape[1]):
        total[:, step] = before + sums[:, step]
        before = np.where(last[:, step], 0, total[:, step])
    return total


def scale_work(
    config: ArrayConfig,
    dot: Work,
    scale: NDArray[np.float16],
    shift: NDArray[np.float16],
    x: NDArray[Any],
    *,
    parts: int,
) -> Work:
    """Return the inputs of one row's `ScaleShift` behind a `GroupDot` that does `dot`.

    Parameters
    ----------
    scale, shift : float16 [N, groups]
    x : int8 or float16 [M, K]

    Raises
    ------
    TernError
        If the unit takes products in turn: groups would have to wait, and so would `dot`.
    """
    if config.products != 2:
        raise TernError(f"products must be 2 where switching is measured, not {config.products}")
    groups, k = scale.shape[1], x.shape[1]
    steps = config.steps(k)
    group_of_step = np.arange(steps) // (config.group_steps or steps)
    last = np.append(group_of_step[1:] != group_of_step[:-1], True).astype(np.int64)
    inputs = fixed_activations(x)
    size = k if config.group_size == "row" else config.group_size
    sums = np.stack([inputs[:, g * size : (g + 1) * size].sum(axis=1) for g in range(groups)], 1)
    halves = [half.view(np.uint16).astype(np.int64)[:, group_of_step] for half in (scale, shift)]
    rows, tokens = _streams(np.stack(halves, axis=2), sums[:, group_of_step], parts)
    streams, count = rows.shape[:2]
    ends = np.tile(last, (streams, count))
    row_ends = (np.arange(steps) == steps - 1).astype(np.int64)
    flat = rows.reshape(streams, count * steps, 2)
    return Work(
        stimulus={
            # The factors come a cycle before all else.
            "scale": flat[..., :1],
            "shift": flat[..., 1:],
            "valid": _late(ends[..., None], 1),
            "last": _late(np.tile(row_ends, (streams, count))[..., None], 1),
            "dot": _late(dot.expected[..., None], 1),
            "inputs": _late(np.tile(tokens, (1, count))[..., None], 1),
            "scaled": _late(ends[..., None], 1),
        },
        # The row's sum of before ends with the first row.
        warm_up=steps + SPARE_CYCLES,
        macs_per_cycle=dot.macs_per_cycle,
        expected=np.zeros((streams, 0), np.int64),
        latency=0,
    )


def mac_work(
    weight: NDArray[np.float16],
    x: NDArray[np.float16],
    *,
    parts: int,
    accumulator: str,
    latency: int = 1,
    loop: int = 1,
) -> Work:
    """Return the inputs of a multiply-accumulate, a * b + c, one weight a cycle.

    Parameters
    ----------
    weight : float16 [N, K]
        Not ternary.
    x : float16 [M, K]
    parts
        As in `dot_work`.
    accumulator
        "fp16" or "fp32": the format of c.
    latency, loop
        Cycles from a and b, and from c, to the result. A unit whose loop is longer than a cycle
        works on as many rows in turn, and so does this work.
    """
    rows, tokens = _streams(weight, x, parts)
    streams, count, k = rows.shape
    if count % loop:
        raise TernError(f"rows of a stream must be a multiple of the loop {loop}, not {count}")
    turns = rows.reshape(streams, count // loop, loop, k)
    a = np.broadcast_to(tokens[:, None, None], turns.shape)
    sums = running_sums(turns, a, accumulator)
    before = np.concatenate([np.zeros_like(sums[..., :1]), sums[..., :-1]], axis=-1)
    raw = {2: np.uint16, 4: np.uint32}[sums.itemsize]

    def in_turn(array: NDArray[Any], kind: Any) -> NDArray[np.int64]:
        order = array.swapaxes(2, 3).reshape(streams, -1, 1)
        return np.ascontiguousarray(order).view(kind).astype(np.int64)

    return Work(
        stimulus={
            "a": in_turn(a, np.uint16),
            "b": in_turn(turns, np.uint16),
            "c": _late(in_turn(before, raw), latency - loop),
        },
        warm_up=latency + SPARE_CYCLES,
        macs_per_cycle=1.0,
        expected=in_turn(sums, raw)[..., 0],
        latency=latency,
    )
