"""The energy of a block's switching: toggles of every net times what a toggle costs.

Zero delay (no glitches), no wires between cells, an ideal clock that is never gated: good for
comparing blocks with each other, not for what a chip would take.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.flows.netlist import gate_netlist
from tern_hw.gates.cells import ZERO, Bracket, CellSet, Instance
from tern_hw.gates.cmos import CMOS
from tern_hw.gates.liberty import read_liberty
from tern_hw.gates.netlist import Netlist, read_netlist
from tern_hw.gates.simulator import Activity, Stimulus, simulate

__all__ = ["CLOCK", "DELAY_PS", "INPUTS", "GateEnergy", "cell_set", "measure", "total_energy"]

#: What abc aims at (ps) where cells have delays: 200 MHz. Static timing decides how much is
#: buffered and enlarged, so blocks that are compared need the same.
DELAY_PS: Final = 5000
#: Entries of `by_gate` that are no type of gate: what the block's own inputs charge, and the clock.
INPUTS: Final = "(inputs)"
CLOCK: Final = "(clock)"


@dataclass(frozen=True, kw_only=True)
class GateEnergy:
    """Energy of a block, pJ a cycle, and what it is made of."""

    #: Set of cells, and where its numbers come from.
    library: str
    source: str
    #: Streams times counted cycles.
    cycles: int
    pj_per_cycle: Bracket
    #: By type of cell, beside `INPUTS` and `CLOCK` (pins, and inside the flip-flops).
    by_gate: dict[str, Bracket]
    #: By dotted name of the instance; "" is the top, its inputs among it.
    by_block: dict[str, Bracket]
    #: Combinational cells and flip-flops.
    gates: int
    flops: int
    #: Sum of the cells' areas, in the library's unit.
    area: float
    #: At rest (nW); 0 where the library states none.
    leakage_nw: float
    #: Mean changes of a net in a cycle, the clock's not among them.
    toggle_rate: float

    def per(self, count: float) -> Bracket:
        """Return pJ a cycle divided by a count, such as the MACs of a cycle."""
        return self.pj_per_cycle.scaled(1 / count)


def cell_set(library: Path | None) -> CellSet:
    """Return the cells of a Liberty file, or the generic ones where there is none."""
    return CMOS if library is None else read_liberty(library)


def measure(
    verilog: str,
    top: str,
    stimulus: Stimulus,
    library: Path | None = None,
    *,
    warm_up: int = 1,
    delay_ps: int = DELAY_PS,
) -> GateEnergy:
    """Synthesise a block, simulate its gates and add up what switching them costs.

    Parameters
    ----------
    verilog
        Text of the design.
    top
        Its top module, of one clock.
    stimulus
        Inputs, port -> integers [streams, cycles, fields]; see `simulator.Stimulus`.
    library
        A Liberty file; None takes Yosys' generic gates as static CMOS (`tern_hw.gates.cmos`).
    warm_up
        Cycles at each stream's start that are not counted.
    delay_ps
        Delay that synthesis aims at where the library has delays.

    Raises
    ------
    TernError
        If the design, the library or the stimulus cannot be taken.
    """
    cells = cell_set(library)
    module = gate_netlist(
        verilog,
        top=top,
        liberty=library,
        constraint=cells.constraint,
        delay_ps=delay_ps if library else 0,
        unused=cells.unused,
    )
    netlist = read_netlist(module, cells)
    return total_energy(netlist, cells, simulate(netlist, stimulus, warm_up=warm_up))


def total_energy(netlist: Netlist, cells: CellSet, activity: Activity) -> GateEnergy:
    """Add up the energy of a simulated netlist.

    Notes
    -----
    E = sum over nets of toggles * (V**2 / 2 * sum of the input capacitances behind it + energy
    inside the driver), and for each flip-flop and cycle two toggles of its clock pin and what they
    take inside; a flip-flop's data pin takes energy inside the cell, too.
    """
    half_v2 = cells.voltage_v**2 / 2
    rates = activity.toggles / activity.cycles
    loads = _loads(netlist)
    slews = _slews(netlist, cells, loads)
    shares = [*_inputs(netlist, loads, rates, half_v2), *_clock(netlist, cells, half_v2)]
    for instance in [*netlist.gates, *netlist.flops]:
        shares += _instance(instance, loads, slews, rates, half_v2)
    gates, blocks, total = _sums(shares)
    real = np.array(list(_driven(netlist)), np.int64)
    instances = [*netlist.gates, *netlist.flops]
    return GateEnergy(
        library=cells.name,
        source=cells.source,
        cycles=activity.cycles,
        pj_per_cycle=total,
        by_gate=gates,
        by_block=blocks,
        gates=len(netlist.gates),
        flops=len(netlist.flops),
        area=sum(each.cell.area for each in instances),
        leakage_nw=sum(each.cell.leakage_nw for each in instances),
        toggle_rate=float(rates[real].mean()) if len(real) else 0.0,
    )


#: Entry of `by_gate`, block, and energy a cycle (fJ).
Share = tuple[str, str, Bracket]


def _flat(energy_fj: float) -> Bracket:
    return Bracket(energy_fj, energy_fj, energy_fj)


def _loads(netlist: Netlist) -> NDArray[np.float64]:
    """Return the input capacitance (fF) behind each net."""
    loads = np.zeros(netlist.nets)
    for instance in [*netlist.gates, *netlist.flops]:
        for pin, capacitance in instance.cell.inputs.items():
            loads[instance.pins[pin]] += capacitance
    return loads


def _slews(netlist: Netlist, cells: CellSet, loads: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each net's transition time (ns), from the inputs and flip-flops on."""
    slews = np.full(netlist.nets, cells.input_slew_ns)
    for instance in [*netlist.flops, *netlist.gates]:
        behind = _slew_at(instance, slews)
        for pin, output in instance.cell.outputs.items():
            if pin in instance.pins:
                slot = instance.pins[pin]
                slews[slot] = max(output.slew_ns.at(loads[slot], behind).value, 0.0)
    return slews


def _slew_at(instance: Instance, slews: NDArray[np.float64]) -> float:
    """Return the transition time at a cell's inputs: their mean, or a flip-flop's clock's."""
    flop = instance.cell.flop
    pins = [flop.clock] if flop else list(instance.cell.inputs)
    return float(np.mean([slews[instance.pins[pin]] for pin in pins])) if pins else 0.0


def _driven(netlist: Netlist) -> Iterator[int]:
    """Yield the slots that a cell or an input drives."""
    for bits in netlist.inputs.values():
        yield from bits
    for instance in [*netlist.gates, *netlist.flops]:
        yield from (instance.pins[pin] for pin in instance.cell.outputs if pin in instance.pins)


def _inputs(
    netlist: Netlist, loads: NDArray[np.float64], rates: NDArray[np.float64], half_v2: float
) -> list[Share]:
    slots = [slot for bits in netlist.inputs.values() for slot in bits]
    return [(INPUTS, "", _flat(float(half_v2 * (loads[slots] * rates[slots]).sum())))]


def _clock(netlist: Netlist, cells: CellSet, half_v2: float) -> list[Share]:
    """Return the clock's two edges a cycle: each flip-flop's pin, and what moves behind it."""
    shares = []
    for instance in netlist.flops:
        cell = instance.cell
        assert cell.flop is not None
        pin = _flat(half_v2 * cell.inputs[cell.flop.clock])
        inside = cell.input_fj.get(cell.flop.clock)
        edge = pin.plus(inside.at(0.0, cells.input_slew_ns)) if inside else pin
        shares.append((CLOCK, instance.block, edge.scaled(2)))
    return shares


def _instance(
    instance: Instance,
    loads: NDArray[np.float64],
    slews: NDArray[np.float64],
    rates: NDArray[np.float64],
    half_v2: float,
) -> Iterator[Share]:
    """Yield what a cell's outputs charge and take inside, and what its inputs take inside."""
    cell = instance.cell
    behind = _slew_at(instance, slews)
    for pin, output in cell.outputs.items():
        if pin in instance.pins:
            slot = instance.pins[pin]
            load = float(loads[slot])
            toggle = _flat(half_v2 * load).plus(output.internal_fj.at(load, behind))
            yield cell.name, instance.block, toggle.scaled(float(rates[slot]))
    for pin, energy in cell.input_fj.items():
        if not cell.flop or pin != cell.flop.clock:
            slot = instance.pins[pin]
            yield (
                cell.name,
                instance.block,
                energy.at(0.0, float(slews[slot])).scaled(float(rates[slot])),
            )


def _sums(shares: list[Share]) -> tuple[dict[str, Bracket], dict[str, Bracket], Bracket]:
    """Return the energy (pJ) by gate, by block and in all."""
    gates: defaultdict[str, Bracket] = defaultdict(lambda: ZERO)
    blocks: defaultdict[str, Bracket] = defaultdict(lambda: ZERO)
    total = ZERO
    for gate, block, energy_fj in shares:
        energy = energy_fj.scaled(1e-3)
        gates[gate] = gates[gate].plus(energy)
        blocks[block] = blocks[block].plus(energy)
        total = total.plus(energy)
    return dict(gates), dict(blocks), total
