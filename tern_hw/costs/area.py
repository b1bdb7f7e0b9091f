"""The area of an array: a table's units counted, or any other model of the same interface."""

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from tern_hw.config import ArrayConfig
from tern_hw.costs.actions import (
    Action,
    activation_word,
    group_end_units,
    lane_mask,
    memory_register,
    result,
    row_step,
    scale_beat,
    sum_word,
    weight_beat,
)
from tern_hw.costs.energy import action_area_um2
from tern_hw.costs.loading import load_chunk
from tern_hw.costs.opponents import Opponent, opponent_row_step, opponent_scale
from tern_hw.costs.technology import Values

__all__ = ["AreaModel", "Engine", "TableArea", "units"]

#: What multiplies a model's weights.
Engine = ArrayConfig | Opponent


class AreaModel(Protocol):
    """Tells an array's area; a model fitted to synthesis has the same face."""

    def mm2(self, engine: Engine) -> float:
        """Return the area in mm2."""
        ...


@dataclass(frozen=True)
class TableArea:
    """Area by the technology's table: every unit that does an action, and every memory's bits.

    Wires, clock tree, control and ports are not in it.
    """

    values: Values

    def mm2(self, engine: Engine) -> float:
        """Return the area in mm2."""
        parts = units(engine).items()
        return sum(count * action_area_um2(action, self.values) for action, count in parts) / 1e6


def units(engine: Engine) -> Counter[Action]:
    """Return the units of an array, each by the action that it does; a memory by its write."""
    if isinstance(engine, Opponent):
        row = opponent_row_step(engine) + opponent_scale(engine)
        shared = Counter({engine.word("write"): 1})
        rows = engine.array.rows
    else:
        row = row_step(engine) + group_end_units(engine)
        shared = result(engine) + load_chunk(engine) + scale_beat(engine) + lane_mask(engine)
        shared += weight_beat(engine) + memory_register(engine)
        shared[sum_word(engine, "write")] += 1
        rows = engine.rows
        assert activation_word(engine, "write") in shared
    return Counter({action: rows * count for action, count in row.items()}) + shared
