"""A netlist as the simulator and the energy want it: slots, cells in order, operations."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.errors import TernError
from tern_hw.gates.blocks import blocks_of_gates, registers
from tern_hw.gates.cells import CellSet, Instance
from tern_hw.gates.expression import Expression

__all__ = ["AND", "COPY", "NOT", "ONE_SLOT", "OR", "XOR", "Netlist", "read_netlist"]

#: Operations of the simulator.
AND, OR, XOR, NOT, COPY = range(5)
OPERATIONS: Final = {"and": AND, "or": OR, "xor": XOR, "not": NOT}
#: Slots of the constants; an undriven bit is 0.
ZERO_SLOT, ONE_SLOT = 0, 1
CONSTANTS: Final = {"0": ZERO_SLOT, "1": ONE_SLOT, "x": ZERO_SLOT, "z": ZERO_SLOT}
#: Yosys' notes in a netlist, which are no gates.
NOTES: Final = frozenset({"$scopeinfo"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Netlist:
    """A flat netlist of one clock. A slot is a bit's place in the simulator's memory."""

    #: Combinational cells, each behind those that it reads.
    gates: list[Instance]
    flops: list[Instance]
    #: Ports -> slots, lowest bit first; the clock is not among them.
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    #: Slots of nets are below this; those above hold what is between operations.
    nets: int
    slots: int
    #: Operation, result and operands, int32 [operations, 4].
    program: NDArray[np.int32]
    #: Slot of each flip-flop's state, slot of its next state, int32 [flops, 2].
    states: NDArray[np.int32]
    #: What the states are before the first cycle, bool [flops].
    starts: NDArray[np.bool_]
    #: Names of nets -> slots, lowest bit first.
    names: dict[str, list[int]]


def read_netlist(module: dict[str, Any], cells: CellSet) -> Netlist:
    """Read one flat module of Yosys' JSON.

    Raises
    ------
    TernError
        If it has a cell that the set lacks, more than one clock, or a combinational loop.
    """
    slots = _Slots()
    names = {name: slots.of(net["bits"]) for name, net in module["netnames"].items()}
    found = [
        Instance(name, cells.cell(fields["type"]), slots.of_pins(fields["connections"]))
        for name, fields in module["cells"].items()
        if fields["type"] not in NOTES
    ]
    starts = _starts(module, slots)
    gates = _in_order([each for each in found if not each.cell.flop])
    flops = [each for each in found if each.cell.flop]
    inputs, outputs = _ports(module, slots, flops)
    compiler = _Compiler(len(slots))
    states = compiler.compile(gates, flops)
    owner = registers(module, slots.of)
    flops = [flop.within(owner.get(_output_slot(flop), "")) for flop in flops]
    return Netlist(
        gates=blocks_of_gates(gates, flops),
        flops=flops,
        inputs=inputs,
        outputs=outputs,
        nets=len(slots),
        slots=compiler.slots,
        program=np.array(compiler.operations, np.int32).reshape(-1, 4),
        states=np.array(states, np.int32).reshape(-1, 2),
        starts=np.array([_start(flop, starts) for flop in flops], bool),
        names=names,
    )


class _Slots:
    """Numbers for the bits of Yosys' JSON, the constants' first."""

    def __init__(self) -> None:
        self._slot: dict[Any, int] = dict(CONSTANTS)

    def __len__(self) -> int:
        return len(self._slot) - len(CONSTANTS) + ONE_SLOT + 1

    def of(self, bits: list[Any]) -> list[int]:
        for bit in bits:
            if bit not in self._slot:
                self._slot[bit] = len(self)
        return [self._slot[bit] for bit in bits]

    def of_pins(self, connections: dict[str, list[Any]]) -> dict[str, int]:
        return {pin: self.of(bits)[0] for pin, bits in connections.items() if bits}


def _starts(module: dict[str, Any], slots: _Slots) -> dict[int, bool]:
    """Return the reset value of each slot that has one."""
    starts = {}
    for net in module["netnames"].values():
        # Highest bit first.
        values = reversed(net["attributes"].get("init", ""))
        for slot, value in zip(slots.of(net["bits"]), values, strict=False):
            if value in "01":
                starts[slot] = value == "1"
    return starts


def _output_slot(flop: Instance) -> int:
    return next(flop.pins[pin] for pin in flop.cell.outputs if pin in flop.pins)


def _start(flop: Instance, starts: dict[int, bool]) -> bool:
    """Return a flip-flop's first state: that of its output, or the complement of its other's."""
    assert flop.cell.flop is not None
    for pin, output in flop.cell.outputs.items():
        if flop.pins.get(pin) in starts:
            return starts[flop.pins[pin]] == (output.function == flop.cell.flop.states[0])
    return False


def _ports(
    module: dict[str, Any], slots: _Slots, flops: list[Instance]
) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    ports = {name: slots.of(port["bits"]) for name, port in module["ports"].items()}
    clocks = {flop.pins[flop.cell.flop.clock] for flop in flops if flop.cell.flop}
    clock_ports = [name for name, bits in ports.items() if clocks == set(bits)]
    if clocks and not clock_ports:
        raise TernError(f"netlist must have one clock, an input of its own, not {len(clocks)}")
    inputs = {
        name: bits
        for name, bits in ports.items()
        if module["ports"][name]["direction"] == "input" and name not in clock_ports
    }
    outputs = {name: bits for name, bits in ports.items() if name not in {*inputs, *clock_ports}}
    return inputs, outputs


def _in_order(gates: list[Instance]) -> list[Instance]:
    """Order combinational cells, each behind those that it reads."""
    driver = {
        gate.pins[pin]: index
        for index, gate in enumerate(gates)
        for pin in gate.cell.outputs
        if pin in gate.pins
    }
    readers = defaultdict(list)
    waiting = [0] * len(gates)
    for index, gate in enumerate(gates):
        for pin in gate.cell.inputs:
            if gate.pins[pin] in driver:
                readers[driver[gate.pins[pin]]].append(index)
                waiting[index] += 1
    ready = [index for index, count in enumerate(waiting) if not count]
    for index in ready:
        for reader in readers[index]:
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
    if len(ready) < len(gates):
        raise TernError(f"netlist must be free of loops, not have {len(gates) - len(ready)} cells")
    return [gates[index] for index in ready]


class _Compiler:
    """Turns functions into operations; what is between two of them gets a slot of its own."""

    def __init__(self, nets: int) -> None:
        self.slots = nets
        self.operations: list[tuple[int, int, int, int]] = []

    def compile(self, gates: list[Instance], flops: list[Instance]) -> list[tuple[int, int]]:
        """Compile a netlist; return the slots of each flip-flop's state and of its next state."""
        states = [self._outputs_of(flop) for flop in flops]
        for gate in gates:
            for pin, output in gate.cell.outputs.items():
                if pin in gate.pins:
                    self._into(gate.pins[pin], output.function, gate.pins)
        return [
            (state, self._value(flop.cell.flop.next_state, flop.pins))
            for state, flop in zip(states, flops, strict=True)
            if flop.cell.flop
        ]

    def _new(self) -> int:
        self.slots += 1
        return self.slots - 1

    def _outputs_of(self, flop: Instance) -> int:
        assert flop.cell.flop is not None
        state, complement = self._new(), self._new()
        self.operations.append((NOT, complement, state, state))
        places = dict(zip(flop.cell.flop.states, (state, complement), strict=True))
        for pin, output in flop.cell.outputs.items():
            if pin in flop.pins:
                self._into(flop.pins[pin], output.function, places)
        return state

    def _into(self, result: int, expression: Expression, places: dict[str, int]) -> None:
        if isinstance(expression, tuple):
            operands = [self._value(part, places) for part in expression[1:]]
            operation = OPERATIONS[expression[0]]
            self.operations.append((operation, result, operands[0], operands[-1]))
        else:
            slot = self._value(expression, places)
            self.operations.append((COPY, result, slot, slot))

    def _value(self, expression: Expression, places: dict[str, int]) -> int:
        if isinstance(expression, bool):
            return ONE_SLOT if expression else ZERO_SLOT
        if isinstance(expression, str):
            return places[expression]
        result = self._new()
        self._into(result, expression, places)
        return result
