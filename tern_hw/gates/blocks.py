"""Which block of a flattened design a gate belongs to."""

from collections.abc import Callable
from typing import Any

from tern_hw.gates.cells import Instance

__all__ = ["blocks_of_gates", "registers"]


def registers(module: dict[str, Any], slots: Callable[[list[Any]], list[int]]) -> dict[int, str]:
    """Return, for the slots of nets, the dotted name of the instance that declares them.

    A register's own declaration carries its reset value ("init"), an alias in a neighbour does
    not; without one (a Liberty's flip-flops) the innermost public name decides.
    """
    owner: dict[int, tuple[bool, int, str]] = {}
    for name, net in module["netnames"].items():
        if net.get("hide_name"):
            continue
        block = name.rpartition(".")[0]
        rank = ("init" in net["attributes"], block.count(".") + bool(block), block)
        for slot in slots(net["bits"]):
            owner[slot] = max(owner.get(slot, rank), rank)
    return {slot: rank[-1] for slot, rank in owner.items()}


def blocks_of_gates(gates: list[Instance], flops: list[Instance]) -> list[Instance]:
    """Return the gates, each within the innermost block of all registers that it reaches.

    A gate that reaches an output of the design, or none of these, is within the top, "".

    Parameters
    ----------
    gates
        Each behind those that it reads.
    flops
        With their blocks.
    """
    reached: dict[int, str] = {}
    for flop in flops:
        _reach(reached, flop, flop.block)
    found = []
    for gate in reversed(gates):
        blocks = [reached[slot] for slot in _outputs(gate) if slot in reached]
        block = _common(blocks) if blocks else ""
        _reach(reached, gate, block)
        found.append(gate.within(block))
    return found[::-1]


def _outputs(gate: Instance) -> list[int]:
    return [gate.pins[pin] for pin in gate.cell.outputs if pin in gate.pins]


def _reach(reached: dict[int, str], reader: Instance, block: str) -> None:
    for pin in reader.cell.inputs:
        slot = reader.pins[pin]
        reached[slot] = _common([reached.get(slot, block), block])


def _common(blocks: list[str]) -> str:
    """Return the innermost block that holds all of these."""
    parts = [block.split(".") for block in blocks]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)
