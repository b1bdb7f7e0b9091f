"""Yosys' generic gates as static CMOS, by the method of logical effort.

A gate is sized to drive as much as the unit inverter (n-transistor width 1, p-transistor 2) through
its worst path: transistors in series are wider by their number. Its input capacitance is then the
width that an input drives, its parasitic capacitance the width of drains at its output; both in
units of the inverter's input (3 widths), as in I. Sutherland, B. Sproull, D. Harris, "Logical
Effort", Morgan Kaufmann 1999, ch. 4 (inverter 1 and 1, NAND2 4/3 and 2, NOR2 5/3 and 2), and in
N. Weste, D. Harris, "CMOS VLSI Design", 4th ed., 2010, sections 4.4.1 and 4.4.2 and figures there
(AOI21 6/3, 6/3, 5/3 and 7/3; AOI22 6/3 and 12/3; drains of 1 unit for a gate of 1). A toggle of a
net takes C * V**2 / 2 in the mean of rise and fall.
"""

from fractions import Fraction
from typing import Final

from tern_hw.gates.cells import Bracket, Cell, CellSet, Fixed, Flop, Output
from tern_hw.gates.expression import parse_expression

__all__ = ["CMOS", "GATES", "INVERTER_FF", "SUPPLY_V"]

#: Input capacitance of a unit inverter (fF), 45 nm: pin A of INV_X1, NanGate 45 nm Open Cell
#: Library (FreePDK45), typical corner. A common factor: no ratio of two blocks depends on it.
INVERTER_FF: Final = 1.700230
#: Supply (V) of the same library's typical corner (`nom_voltage`).
SUPPLY_V: Final = 1.1
#: Widths of an inverter's input: n 1 and p 2.
INVERTER_WIDTHS: Final = 3

#: Yosys' cell -> function, width that each input drives, width of drains at the output.
GATES: Final[dict[str, tuple[str, dict[str, int], int]]] = {
    # n 1, p 2.
    "$_NOT_": ("!A", {"A": 3}, 3),
    # n 2 in series; p 2 beside each other. Drains: one n, both p.
    "$_NAND_": ("!(A&B)", {"A": 4, "B": 4}, 6),
    # n 1 beside each other; p 4 in series. Drains: both n, one p.
    "$_NOR_": ("!(A|B)", {"A": 5, "B": 5}, 6),
    # n: A, B 2 in series beside C 1; p 4: (A beside B) in series with C, C at the output.
    "$_AOI3_": ("!((A&B)|C)", {"A": 6, "B": 6, "C": 5}, 7),
    # n 2: (A beside B) in series with C, C at the output; p: A, B 4 in series beside C 2.
    "$_OAI3_": ("!((A|B)&C)", {"A": 6, "B": 6, "C": 4}, 8),
    # n 2: two series pairs; p 4: two pairs in series. Drains: two n, one pair of p.
    "$_AOI4_": ("!((A&B)|(C&D))", dict.fromkeys("ABCD", 6), 12),
    # n 2: two pairs in series; p 4: two series pairs. Drains: one pair of n, two p.
    "$_OAI4_": ("!((A|B)&(C|D))", dict.fromkeys("ABCD", 6), 12),
}
#: Bounds of the drains' share: half (transistors that share a drain) and one and a half (wires
#: within a cell, inner nodes). Ours; the books give 1 and say that it depends on the layout.
DRAIN_BOUNDS: Final = (0.5, 1.0, 1.5)

#: The static flip-flop of two latches, each a transmission gate (1 and 1), an inverter, and a
#: clocked inverter of unit transistors that keeps the state; an inverter before and one behind
#: (Weste & Harris 2010, section 10.3). Widths of gates and drains, our count;
#: behind D: first inverter 3 + transmission gate 2; held node 2 + 2 + 3; its inverter 3 + 2 +
#: transmission gate 2.
D_WIDTHS: Final = (3 + 2) + (2 + 2 + 3) + (3 + 2 + 2)
#: Second latch: held node 2 + 2 + 3, inverter 3 + 2 + output inverter 3, output 3.
Q_WIDTHS: Final = (2 + 2 + 3) + (3 + 2 + 3) + 3
#: The clock's 8 transistors, 4 on either phase; and the inverter that makes the other phase.
#: low: phases made once for many flip-flops; high: two inverters in each.
CLOCK_WIDTHS: Final = (8, 8 + 3 + 3, 8 + 2 * (3 + 3))
#: Of these, behind the clock pin itself (4 gates and the inverter's input); D drives an inverter.
CLOCK_PIN_WIDTHS: Final = 4 + 3


def _fj(widths: float) -> float:
    """Return the energy (fJ) of one toggle of so many widths."""
    return float(Fraction(widths) / INVERTER_WIDTHS) * INVERTER_FF * SUPPLY_V**2 / 2


def _ff(widths: int) -> float:
    return widths / INVERTER_WIDTHS * INVERTER_FF


def _drains(widths: int) -> Fixed:
    return Fixed(Bracket(*(_fj(bound * widths) for bound in DRAIN_BOUNDS)))


def _gate(name: str, function: str, inputs: dict[str, int], drains: int) -> Cell:
    output = Output(function=parse_expression(function), internal_fj=_drains(drains))
    return Cell(
        name=name,
        inputs={pin: _ff(widths) for pin, widths in inputs.items()},
        outputs={"Y": output},
        area=sum(inputs.values()),
    )


def _flop() -> Cell:
    low, middle, high = (_fj(widths - CLOCK_PIN_WIDTHS) for widths in CLOCK_WIDTHS)
    return Cell(
        name="$_DFF_P_",
        inputs={"C": _ff(CLOCK_PIN_WIDTHS), "D": _ff(3)},
        outputs={"Q": Output(function="IQ", internal_fj=_drains(Q_WIDTHS))},
        flop=Flop(clock="C", next_state="D", states=("IQ", "IQN")),
        input_fj={"C": Fixed(Bracket(low, middle, high)), "D": _drains(D_WIDTHS)},
        # Gates: D 3, two latches of 3 + 2 and their output inverter 3, the clock's.
        area=3 + 2 * (3 + 2) + 3 + 8 + 3,
    )


CMOS: Final = CellSet(
    name="generic CMOS",
    source="logical effort (Sutherland, Sproull & Harris 1999); NanGate 45 nm INV_X1, 1.1 V",
    voltage_v=SUPPLY_V,
    cells={name: _gate(name, *numbers) for name, numbers in GATES.items()} | {"$_DFF_P_": _flop()},
)
