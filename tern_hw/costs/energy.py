"""What an action costs: the rules from a table's few points to any width and capacity."""

import math
from collections.abc import Mapping
from typing import Final

from tern_hw.costs.actions import Action
from tern_hw.costs.technology import Values
from tern_hw.errors import TernError

__all__ = ["MEMORY_ACTIONS", "action_area_um2", "action_energy_pj", "energy_pj", "sram_pj_per_bit"]

#: Actions of on-chip memories; all others are computation.
MEMORY_ACTIONS: Final = frozenset({"read", "write"})
#: Floating-point operations, priced as they stand in the table.
FLOATS: Final = frozenset(
    f"{form}_{what}" for form in ("bf16", "fp16", "fp32") for what in ("add", "mul")
)
#: Bits of an access in the tables, and the capacities in bytes.
ACCESS_BITS: Final = 64
CAPACITIES: Final = (
    (8 << 10, "energy.sram_8kb"),
    (32 << 10, "energy.sram_32kb"),
    (1 << 20, "energy.sram_1mb"),
)
#: Largest on-chip memory that the last two points are stretched to, in bytes.
MAX_SRAM_BYTES: Final = 16 << 20


def energy_pj(actions: Mapping[Action, int], values: Values) -> tuple[float, float]:
    """Return the energy in pJ of actions: (computation, on-chip memories)."""
    compute = memory = 0.0
    for action, count in actions.items():
        cost = count * action_energy_pj(action, values)
        if action.component in MEMORY_ACTIONS:
            memory += cost
        else:
            compute += cost
    return compute, memory


def action_energy_pj(action: Action, values: Values) -> float:
    """Return the energy in pJ of doing an action once.

    Notes
    -----
    * An integer add is linear in its width between the table's 8 and 32 bits, and proportional
      to it outside. Where trits decide whether the operands are zero, it is times
      1 - z ** lanes, with z the share of zeros: each operand is the sum of lanes / 2 trits, all
      zero with probability z ** (lanes / 2), and a bit that is 1 half of the other times differs
      from its successor 1 - z ** lanes times as often as a random one.
    * An integer multiply of a x b bits is a * b partial products, whose price is linear in
      sqrt(a * b) between 8 and 32 and constant outside.
    * A memory's access is linear in its bits, and a power of its capacity between the points.
    * Gates and registers are paid at every step, whatever the trits.
    """
    component = action.component
    if component == "add":
        active = 1 - values["data.zero_fraction"] ** action.lanes if action.lanes else 1.0
        return active * _add(action.bits, values, "energy")
    if component == "multiply":
        return _multiply(action, values, "energy")
    if component == "gate":
        return action.bits * values["energy.gate"]
    if component == "register":
        return action.bits * values["energy.register_bit"]
    if component in MEMORY_ACTIONS:
        return action.bits * sram_pj_per_bit(action.capacity_bytes, values)
    if component in FLOATS:
        return values[f"energy.{component}"]
    raise TernError(f"component must be one that has a price, not {component!r}")


def action_area_um2(action: Action, values: Values) -> float:
    """Return the area in um2 of what does an action; a memory's is that of its capacity."""
    component = action.component
    if component == "add":
        return _add(action.bits, values, "area")
    if component == "multiply":
        return _multiply(action, values, "area")
    if component == "gate":
        return action.bits * values["area.gate"]
    if component == "register":
        return action.bits * values["area.register_bit"]
    if component in MEMORY_ACTIONS:
        return 8 * action.capacity_bytes * values["area.sram_bit"]
    if component in FLOATS:
        return values[f"area.{component}"]
    raise TernError(f"component must be one that has an area, not {component!r}")


def _add(bits: int, values: Values, what: str) -> float:
    narrow, wide = values[f"{what}.int_add_8"], values[f"{what}.int_add_32"]
    if bits <= 8:
        return narrow * bits / 8
    if bits >= 32:
        return wide * bits / 32
    return narrow + (wide - narrow) * (bits - 8) / 24


def _multiply(action: Action, values: Values, what: str) -> float:
    narrow, wide = values[f"{what}.int_mul_8"] / 64, values[f"{what}.int_mul_32"] / 1024
    width = min(max(math.sqrt(action.bits * action.by), 8), 32)
    return action.bits * action.by * (narrow + (wide - narrow) * (width - 8) / 24)


def sram_pj_per_bit(capacity_bytes: int, values: Values) -> float:
    """Return the energy in pJ of a bit of an access to an on-chip memory.

    A power law of the capacity through the two nearest points; a memory below the smallest
    point costs as much as that point.
    """
    if capacity_bytes > MAX_SRAM_BYTES:
        raise TernError(
            f"on-chip memory must be at most {MAX_SRAM_BYTES} bytes, not {capacity_bytes}"
        )
    sizes = [size for size, _ in CAPACITIES]
    prices = [values[key] for _, key in CAPACITIES]
    at = 0 if capacity_bytes <= sizes[1] else 1
    slope = math.log(prices[at + 1] / prices[at]) / math.log(sizes[at + 1] / sizes[at])
    size = max(capacity_bytes, sizes[0])
    return prices[at] * (size / sizes[at]) ** slope / ACCESS_BITS
