"""The cells of a Liberty file: capacitances, internal power, leakage, functions."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from tern_hw.errors import TernError
from tern_hw.gates.cells import Cell, CellSet, Fixed, Flop, Output, Surface
from tern_hw.gates.expression import Expression, names_of, parse_expression
from tern_hw.gates.syntax import Group, read_groups
from tern_hw.gates.tables import Mean, Spread, read_table

__all__ = ["LOAD_INPUTS", "OSU018", "liberty_path", "read_liberty"]

#: What `liberty_path` calls the OSU 0.18 um cells, and where Debian's package puts them.
OSU018: Final = "osu018"
OSU018_PATH: Final = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")

#: Powers of ten of the units a Liberty may state.
PREFIXES: Final = {"m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15, "": 1.0}
#: Outputs of a block drive this many inputs of the library's smallest inverter.
LOAD_INPUTS: Final = 4


def liberty_path(name: str) -> Path:
    """Return the path of a Liberty file: the name itself, or where a package puts it.

    Raises
    ------
    TernError
        If it is not there.
    """
    path = OSU018_PATH if name == OSU018 else Path(name)
    if not path.is_file():
        remedy = " (Debian: apt install qflow-tech-osu018)" if name == OSU018 else ""
        raise TernError(f"liberty must be an existing file or {OSU018}, not {path}{remedy}")
    return path


@dataclass(frozen=True)
class Units:
    """Factors from a library's units to ours (fF, ns, fJ, nW), and its tables' templates."""

    capacitance_ff: float
    time_ns: float
    energy_fj: float
    leakage_nw: float
    templates: dict[str, Group]


@lru_cache(maxsize=4)
def read_liberty(path: Path) -> CellSet:
    """Read the cells that synthesis may use: combinational ones and plain flip-flops.

    A flip-flop with set, clear or a falling edge, a latch, a tri-state output and a cell marked
    `dont_use` are left out, and synthesis is told so.

    Raises
    ------
    TernError
        If the file is no Liberty, states no voltage, or lacks an inverter, a buffer or a flip-flop.
    """
    library = read_groups(path)
    voltage = library.number("nom_voltage", math.nan)
    if not voltage > 0:
        raise TernError(f"nom_voltage of {path} must be a positive number of volts")
    voltage_unit = _unit(library, "voltage_unit", "V", 1.0)
    units = _units(library, voltage_unit)
    groups = {group.arguments[0]: group for group in library.of("cell")}
    read = {name: _cell(name, group, units) for name, group in groups.items()}
    cells = {name: cell for name, cell in read.items() if cell is not None}
    inverters = sorted(
        (cell for cell in cells.values() if _is_inverter(cell)),
        key=lambda cell: (sum(cell.inputs.values()), cell.name),
    )
    # Without a buffer abc breaks off.
    buffers = [cell for cell in cells.values() if _functions(cell) == [*cell.inputs]]
    if not inverters or not buffers or not any(cell.flop for cell in cells.values()):
        raise TernError(
            f"{path} must have an inverter, a buffer and a plain flip-flop at the rising edge"
        )
    load_ff = LOAD_INPUTS * sum(inverters[0].inputs.values())
    return CellSet(
        name=library.arguments[0],
        source=f"{path.name}, {voltage * voltage_unit:g} V",
        voltage_v=voltage * voltage_unit,
        cells=cells,
        input_slew_ns=_driven_slew(inverters[-1], load_ff),
        unused=tuple(sorted(set(groups) - set(cells))),
        # abc takes the load in fF whatever the library's unit.
        constraint=f"set_driving_cell {inverters[-1].name}\nset_load {load_ff:.4f} [all_outputs]\n",
    )


def _functions(cell: Cell) -> list[Expression]:
    return [output.function for output in cell.outputs.values()]


def _is_inverter(cell: Cell) -> bool:
    return len(cell.inputs) == 1 and _functions(cell) == [("not", *cell.inputs)]


def _driven_slew(driver: Cell, load_ff: float) -> float:
    """Return the transition time that the driving cell gives a block's inputs."""
    (output,) = driver.outputs.values()
    return output.slew_ns.at(load_ff, 0.0).value


def _unit(library: Group, name: str, symbol: str, default: float) -> float:
    """Return a unit such as "1ns" in its base (s, V, W); the default where none is stated."""
    text = library.text(name).strip()
    if not text:
        return default
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    prefix = text[len(number) :].lower().removesuffix(symbol.lower())
    if prefix not in PREFIXES or not number:
        raise TernError(f"{name} must be a number and a unit like 1{symbol}, not {text!r}")
    return float(number) * PREFIXES[prefix]


def _units(library: Group, voltage_unit: float) -> Units:
    amount, prefix = (library.attributes.get("capacitive_load_unit") or ["1", "pf"])[:2]
    farad = float(amount) * PREFIXES.get(prefix.lower().removesuffix("f"), math.nan)
    if not farad > 0:
        raise TernError(f"capacitive_load_unit must be like (1,pf), not ({amount},{prefix})")
    return Units(
        capacitance_ff=farad * 1e15,
        time_ns=_unit(library, "time_unit", "s", 1e-9) * 1e9,
        # Liberty User Guide: the unit of internal energy is capacitance times voltage squared.
        energy_fj=farad * voltage_unit**2 * 1e15,
        leakage_nw=_unit(library, "leakage_power_unit", "W", 1e-9) * 1e9,
        templates={
            group.arguments[0]: group
            for kind in ("lu_table_template", "power_lut_template")
            for group in library.of(kind)
        },
    )


def _cell(name: str, group: Group, units: Units) -> Cell | None:
    """Return a cell, or None where it is not one that we use."""
    pins = {pin.arguments[0]: pin for pin in group.of("pin")}
    outputs = {name: pin for name, pin in pins.items() if pin.text("direction") == "output"}
    inputs = {name: pin for name, pin in pins.items() if pin.text("direction") == "input"}
    flops = list(group.of("ff"))
    odd = [*group.of("latch"), *group.of("statetable"), *group.of("bus"), *group.of("bundle")]
    odd += [pin for pin in outputs.values() if "three_state" in pin.attributes]
    if odd or len(flops) > 1 or group.text("dont_use").lower() == "true" or not outputs:
        return None
    if any("function" not in pin.attributes for pin in outputs.values()):
        return None
    flop = _flop(flops[0]) if flops else None
    if flops and flop is None:
        return None
    known = {*inputs, *(flop.states if flop else ())}
    made = {name: _output(pin, units) for name, pin in outputs.items()}
    if any(pin not in known for output in made.values() for pin in names_of(output.function)):
        return None
    return Cell(
        name=name,
        inputs={
            name: pin.number("capacitance", 0.0) * units.capacitance_ff
            for name, pin in inputs.items()
        },
        outputs=made,
        flop=flop,
        input_fj={
            name: energy
            for name, pin in inputs.items()
            if (energy := _energy(pin, units)) is not None
        },
        area=group.number("area", 0.0),
        leakage_nw=group.number("cell_leakage_power", 0.0) * units.leakage_nw,
    )


def _flop(group: Group) -> Flop | None:
    clock = parse_expression(group.text("clocked_on"))
    if not isinstance(clock, str) or "clear" in group.attributes or "preset" in group.attributes:
        return None
    state, complement = group.arguments
    return Flop(
        clock=clock,
        next_state=parse_expression(group.text("next_state")),
        states=(state, complement),
    )


def _output(pin: Group, units: Units) -> Output:
    slews = [
        Mean(tables)
        for timing in pin.of("timing")
        if (tables := _edges(timing, ("rise_transition", "fall_transition"), units.time_ns, units))
    ]
    return Output(
        function=parse_expression(pin.text("function")),
        internal_fj=_energy(pin, units) or Fixed(),
        slew_ns=Spread(slews) if slews else Fixed(),
    )


def _energy(pin: Group, units: Units) -> Surface | None:
    """Return the energy a toggle of a pin, with its spread over related pins and conditions."""
    arcs = [
        Mean(tables)
        for power in pin.of("internal_power")
        if (tables := _edges(power, ("rise_power", "fall_power", "power"), units.energy_fj, units))
    ]
    return Spread(arcs) if arcs else None


def _edges(group: Group, kinds: tuple[str, ...], unit: float, units: Units) -> list[Surface]:
    """Return the tables of a rise and of a fall."""
    return [
        read_table(
            table,
            units.templates,
            unit=unit,
            load_ff=units.capacitance_ff,
            time_ns=units.time_ns,
        )
        for kind in kinds
        for table in group.of(kind)
    ]
