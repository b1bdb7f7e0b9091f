"""Arrays with multipliers in the ternary array's place: what each number format does and moves."""

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tern_hw.config import Activation, ArrayConfig, OutputFormat, Packing, weight_window_cycles
from tern_hw.costs.actions import Action
from tern_hw.costs.counts import Counts, check_shape

__all__ = [
    "FORMATS",
    "MAX_HEAD",
    "Format",
    "Opponent",
    "count_opponent",
    "opponent_row_step",
    "opponent_scale",
]

#: Most outputs of a language model's head.
MAX_HEAD: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Format:
    """A number format of weights and activations, and the units of one multiply-accumulate."""

    name: str
    title: str
    weight_bits: int
    activation_bits: int
    #: Operation of a product, and the bits it is held in.
    multiply: Action
    product_bits: int
    #: Floating-point operation of a sum; None: integers, whose width grows up the tree.
    add: str | None
    #: Bits of the sum over the row.
    sum_bits: int
    #: Bytes of scale and shift, and what they belong to: "group", "row" or None.
    scale_bytes: int = 0
    scale_per: str | None = None


def _float(name: str, title: str, multiply: str, add: str, sum_bits: int) -> Format:
    return Format(
        name=name,
        title=title,
        weight_bits=16,
        activation_bits=16,
        multiply=Action(multiply),
        product_bits=sum_bits,
        add=add,
        sum_bits=sum_bits,
    )


#: Formats by name. A sum in fp32 is what accelerators of fp16 do; one in fp16 is the cheapest
#: multiply-accumulate that the literature's ratios are of.
FORMATS: Final[dict[str, Format]] = {
    each.name: each
    for each in (
        _float("fp16", "FP16, sums in fp16", "fp16_mul", "fp16_add", 16),
        _float("fp16_fp32", "FP16, sums in fp32", "fp16_mul", "fp32_add", 32),
        _float("bf16", "BF16, sums in fp32", "bf16_mul", "fp32_add", 32),
        Format(
            name="int8",
            title="INT8 x INT8, scales a row",
            weight_bits=8,
            activation_bits=8,
            multiply=Action("multiply", bits=8, by=8),
            product_bits=16,
            add=None,
            sum_bits=32,
            scale_bytes=2,
            scale_per="row",
        ),
        Format(
            name="int4",
            title="INT4 x INT8, scales a group",
            weight_bits=4,
            activation_bits=8,
            multiply=Action("multiply", bits=4, by=8),
            product_bits=12,
            add=None,
            sum_bits=32,
            scale_bytes=4,
            scale_per="group",
        ),
    )
}


@dataclass(frozen=True)
class Opponent:
    """An array of another format with the lanes, rows and schedule of a ternary one."""

    format: Format
    #: Its lanes, rows, maxima and group size; activation and packing do not matter.
    array: ArrayConfig

    @classmethod
    def beside(cls, form: str, array: ArrayConfig) -> "Opponent":
        """Return the array of a format with a ternary array's lanes, rows and group size."""
        return cls(FORMATS[form], dataclasses.replace(array, max_n=MAX_HEAD))

    @property
    def schedule(self) -> ArrayConfig:
        """A configuration with this one's schedule: no segments, our pipeline's depth."""
        return dataclasses.replace(
            self.array,
            activation=Activation.INT8,
            aligned=None,
            packing=Packing.BITS2,
            output=OutputFormat.FP32,
            group_size="row",
            products=2,
        )

    @property
    def scale_groups(self) -> int | None:
        """Inputs of a scale, for formats with one a group; None where the row has one or none."""
        size = self.array.group_size
        return size if self.format.scale_per == "group" and size != "row" else None

    def word(self, component: str) -> Action:
        """Return the read or write of a word of its activation memory."""
        bits = self.array.lanes * self.format.activation_bits
        return Action(component, bits=bits, capacity_bytes=bits * self.array.max_chunks // 8)


def opponent_row_step(opponent: Opponent) -> Counter[Action]:
    """Return what one row does in one step: a product a lane, their sum, the sum of the row."""
    form, lanes = opponent.format, opponent.array.lanes
    counts: Counter[Action] = Counter({form.multiply: lanes})
    counts[Action("register", bits=form.product_bits)] += lanes
    level = [1] * lanes
    while len(level) > 1:
        pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
        level = [sum(pair) for pair in pairs]
        for pair, below in zip(pairs, level, strict=True):
            width = form.sum_bits if form.add else form.product_bits + (below - 1).bit_length()
            if len(pair) == 2:
                counts[_add(form, width)] += 1
            counts[Action("register", bits=width)] += 1
    counts[_add(form, form.sum_bits)] += 1
    counts[Action("register", bits=form.sum_bits)] += 1
    return counts


def _add(form: Format, bits: int) -> Action:
    return Action(form.add) if form.add else Action("add", bits=bits)


def opponent_scale(opponent: Opponent) -> Counter[Action]:
    """Return what one row does with a scale: in fp32, times the sum, onto the row's result."""
    each = opponent.format.scale_bytes // 2
    counts: Counter[Action] = Counter()
    if each:
        counts[Action("fp32_mul")] = each
        counts[Action("fp32_add")] = each
        counts[Action("register", bits=32)] = 2 * each
    return counts


@lru_cache(maxsize=4096)
def count_opponent(opponent: Opponent, m: int, n: int, k: int) -> Counts:
    """Count a product of M tokens with an [N, K] weight on an array with multipliers.

    It keeps the ternary array's schedule: a token's activations stay, all weights stream
    through once a token, row block by row block.

    Raises
    ------
    TernError
        If a dimension is out of range.
    """
    check_shape(opponent.array, m, n, k)
    form, schedule = opponent.format, opponent.schedule
    lanes, rows = schedule.lanes, schedule.rows
    steps, blocks = schedule.steps(k), schedule.row_blocks(n)
    size = opponent.scale_groups
    ends = blocks * (math.ceil(k / size) if size else 1) if form.scale_bytes else 0
    actions: Counter[Action] = Counter()
    for part, times in (
        (opponent_row_step(opponent), rows * blocks * steps),
        (opponent_scale(opponent), rows * ends),
        ({Action("register", bits=form.sum_bits): 1}, n),
        ({opponent.word("write"): 1}, steps),
        ({opponent.word("read"): 1}, blocks * steps),
    ):
        for action, count in part.items():
            actions[action] += m * times * count
    beat = rows * -(-lanes * form.weight_bits // 8)
    return Counts(
        m=m,
        n=n,
        k=k,
        cycles=m * schedule.job_cycles(n, k),
        weight_window_cycles=weight_window_cycles(schedule, n, k),
        load_steps=m * steps,
        compute_steps=m * blocks * steps,
        activation_beats=m * steps,
        weight_beats=m * blocks * steps,
        scale_beats=m * ends,
        result_beats=m * n,
        activation_bytes=m * steps * lanes * form.activation_bits // 8,
        weight_bytes=m * blocks * steps * beat,
        scale_bytes=m * ends * rows * form.scale_bytes,
        result_bytes=m * n * form.sum_bits // 8,
        group_sums=m * ends * rows,
        actions=dict(actions),
    )
