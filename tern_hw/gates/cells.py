"""What a cell is to this package: functions, capacitances, energies a toggle; and a set of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from tern_hw.errors import TernError
from tern_hw.gates.expression import Expression

__all__ = ["ZERO", "Bracket", "Cell", "CellSet", "Fixed", "Flop", "Instance", "Output"]


class Bracket(NamedTuple):
    """A quantity with its bounds."""

    low: float
    value: float
    high: float

    def scaled(self, factor: float) -> "Bracket":
        """Return the quantity times a factor that is not negative."""
        return Bracket(*(factor * part for part in self))

    def plus(self, other: "Bracket") -> "Bracket":
        """Return the sum, bounds with bounds."""
        return Bracket(*(a + b for a, b in zip(self, other, strict=True)))


ZERO = Bracket(0.0, 0.0, 0.0)


class Surface(Protocol):
    """A quantity over an output's load and the transition time of the input behind it."""

    def at(self, load_ff: float, slew_ns: float) -> Bracket:
        """Return the quantity at a load (fF) and an input transition time (ns)."""
        ...


@dataclass(frozen=True)
class Fixed:
    """A `Surface` without slope."""

    bracket: Bracket = ZERO

    def at(self, load_ff: float, slew_ns: float) -> Bracket:
        """Return the same everywhere."""
        return self.bracket


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output pin."""

    #: Of the cell's inputs, or of its state where the cell is a flip-flop.
    function: Expression
    #: Energy inside the cell (fJ) a toggle of this output; the mean of a rise and a fall.
    internal_fj: Surface = Fixed()
    #: Transition time (ns) of the output.
    slew_ns: Surface = Fixed()


@dataclass(frozen=True, kw_only=True)
class Flop:
    """A flip-flop at the rising edge: state <- next."""

    clock: str
    next_state: Expression
    #: Names of the state and of its complement in the outputs' functions.
    states: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One type of cell, plain numbers only."""

    name: str
    #: Input pin -> capacitance (fF).
    inputs: Mapping[str, float]
    outputs: Mapping[str, Output]
    flop: Flop | None = None
    #: Input pin -> energy inside the cell (fJ) a toggle of that input, whatever the output does.
    input_fj: Mapping[str, Surface] = field(default_factory=dict)
    #: Area in the set's unit.
    area: float = 0.0
    leakage_nw: float = 0.0


@dataclass(frozen=True)
class Instance:
    """A cell of a netlist."""

    name: str
    cell: Cell
    #: Pin -> slot of its net.
    pins: dict[str, int]
    #: Dotted name of the block that it belongs to, "" for the top.
    block: str = ""

    def within(self, block: str) -> "Instance":
        """Return the same instance, in a block."""
        return replace(self, block=block)


@dataclass(frozen=True, kw_only=True)
class CellSet:
    """The cells a netlist may consist of.

    Raises
    ------
    TernError
        From `cell`, if there is none of that name.
    """

    name: str
    #: Where the numbers come from.
    source: str
    voltage_v: float
    cells: Mapping[str, Cell]
    #: Transition time (ns) of the block's inputs and of its clock.
    input_slew_ns: float = 0.0
    #: Names, by type as abc and dfflibmap take them, of cells that synthesis must not use.
    unused: tuple[str, ...] = ()
    #: abc's constraint file: driving cell and load.
    constraint: str = ""

    def cell(self, name: str) -> Cell:
        """Return a cell by its type."""
        if name not in self.cells:
            raise TernError(f"cell must be one of {self.name}'s {len(self.cells)}, not {name!r}")
        return self.cells[name]
