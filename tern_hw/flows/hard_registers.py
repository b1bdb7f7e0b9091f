"""Registers at ECP5's block RAMs and multipliers move into these hard cells' own registers.

Yosys leaves them in slices. Without its output register a block RAM answers 5.8 ns after its
clock, and between its pins a multiplier takes 3.9 ns: no design with either would reach 170 MHz.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["absorb_registers"]

#: A net: a number, or a constant as Yosys writes it.
Bit = int | str
#: Clock, enable and reset of the multiplier that its registers take.
CONTROLS: Final = ("CLK0", "CE0", "RST0")


@dataclass(frozen=True)
class _Clocking:
    """What the registers of a word have in common; one that is reset has none."""

    clock: Bit
    enable: Bit


@dataclass
class _Nets:
    """Who drives and who loads each net of a module."""

    cells: dict[str, dict[str, Any]]
    #: Net -> (cell, pin) of what loads it; a port of the module counts as one of cell "".
    loads: dict[Bit, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    #: Net -> name of the register that drives it.
    registers: dict[Bit, str] = field(default_factory=dict)

    @classmethod
    def of(cls, module: dict[str, Any]) -> "_Nets":
        nets = cls(module["cells"])
        for name, cell in nets.cells.items():
            for pin, bits in cell["connections"].items():
                if cell["port_directions"][pin] == "output":
                    if cell["type"] == "TRELLIS_FF":
                        nets.registers[bits[0]] = name
                    continue
                for bit in bits:
                    nets.loads[bit].append((name, pin))
        for port in module["ports"].values():
            if port["direction"] != "input":
                for bit in port["bits"]:
                    nets.loads[bit].append(("", ""))
        return nets

    def clocking(self, name: str) -> _Clocking | None:
        """Return the clock and enable of a register; None where it has a reset, or starts at 1."""
        cell = self.cells[name]
        pins, options = cell["connections"], cell["parameters"]
        if options.get("REGSET", "RESET") != "RESET" or options.get("CLKMUX", "CLK") != "CLK":
            return None
        if pins.get("LSR", ["0"]) != ["0"] and options.get("LSRMUX", "LSR") != "0":
            return None
        mux = options.get("CEMUX", "1").strip()
        if mux == "INV":
            return None
        return _Clocking(pins["CLK"][0], pins["CE"][0] if mux == "CE" else "1")

    def common(self, names: Iterable[str]) -> _Clocking | None:
        """Return the clocking that all these registers have; None where they differ."""
        found = {self.clocking(name) for name in names}
        return found.pop() if len(found) == 1 else None

    def registers_after(self, bits: Iterable[Bit]) -> list[str] | None:
        """Return the register of each output that is used, when it alone takes that; or None."""
        names = []
        for bit in bits:
            loads = self.loads[bit]
            if not loads:
                continue
            name, pin = loads[0]
            if len(loads) > 1 or pin != "DI" or self.cells[name]["type"] != "TRELLIS_FF":
                return None
            names.append(name)
        return names or None

    def registers_before(self, bits: Iterable[Bit]) -> list[str] | None:
        """Return the register of each input, when multipliers alone take what it holds; or None."""
        names = []
        for bit in bits:
            if isinstance(bit, str):
                continue
            name = self.registers.get(bit)
            kinds = {self._operand_of(*load) for load in self.loads[bit]}
            if name is None or kinds != {True}:
                return None
            names.append(name)
        return names or None

    def _operand_of(self, name: str, pin: str) -> bool:
        return bool(name) and self.cells[name]["type"] == "MULT18X18D" and pin[0] in "AB"

    def input_of(self, bit: Bit) -> Bit:
        """Return what the register behind a net takes; a constant is itself."""
        return bit if isinstance(bit, str) else self._pins(self.registers[bit])["DI"][0]

    def output_of(self, bit: Bit) -> Bit:
        """Return what the register that takes a net drives."""
        return self._pins(self.loads[bit][0][0])["Q"][0]

    def _pins(self, name: str) -> dict[str, list[Bit]]:
        pins: dict[str, list[Bit]] = self.cells[name]["connections"]
        return pins


def absorb_registers(netlist: dict[str, Any]) -> int:
    """Move registers of an ECP5 netlist, as Yosys writes it in JSON, into hard cells; in place.

    The contents at any clock edge stay what they were: a register moves only when the hard cell
    alone drives it (or multipliers alone take what it holds), when all of a word share clock and
    enable, and when none is reset.

    Parameters
    ----------
    netlist
        Flat: everything stands in the module with the attribute `top`.

    Returns
    -------
    int
        Registers that are gone from the netlist.
    """
    module = next(m for m in netlist["modules"].values() if "top" in m.get("attributes", {}))
    before = len(module["cells"])
    for kind, absorb in (("MULT18X18D", _absorb_product), ("DP16KD", _absorb_word)):
        for cell in [each for each in module["cells"].values() if each["type"] == kind]:
            absorb(_Nets.of(module), cell)
    return before - len(module["cells"])


def _pins_named(cell: dict[str, Any], pattern: str) -> list[str]:
    return [pin for pin in cell["connections"] if re.fullmatch(pattern, pin)]


def _replace(cell: dict[str, Any], pins: Iterable[str], bits: Iterable[Bit]) -> None:
    for pin, bit in zip(pins, bits, strict=True):
        cell["connections"][pin] = [bit]


def _absorb_product(nets: _Nets, cell: dict[str, Any]) -> None:
    """Give a multiplier its operands' registers, and its product's, of one clock and enable."""
    used = _absorb_operands(nets, cell)
    pins = [p for p in _pins_named(cell, r"P\d+") if nets.loads[cell["connections"][p][0]]]
    bits = [cell["connections"][pin][0] for pin in pins]
    names = nets.registers_after(bits)
    shared = nets.common(names) if names else None
    if names and shared is not None and used in (None, shared):
        _replace(cell, pins, [nets.output_of(bit) for bit in bits])
        _clock(cell, "REG_OUTPUT", shared)
        for name in names:
            del nets.cells[name]


def _absorb_operands(nets: _Nets, cell: dict[str, Any]) -> _Clocking | None:
    """Give a multiplier the registers of both operands, or of neither; return their clocking."""
    pins = _pins_named(cell, r"[AB]\d+")
    bits = [cell["connections"][pin][0] for pin in pins]
    names = nets.registers_before(bits)
    shared = nets.common(names) if names else None
    if names is None or shared is None:
        return None
    _replace(cell, pins, [nets.input_of(bit) for bit in bits])
    for stem in ("REG_INPUTA", "REG_INPUTB"):
        _clock(cell, stem, shared)
    _forget_unused(nets, names)
    return shared


def _clock(cell: dict[str, Any], stem: str, clocking: _Clocking) -> None:
    for control, bit in zip(CONTROLS, (clocking.clock, clocking.enable, "0"), strict=True):
        cell["connections"][control] = [bit]
        cell["port_directions"][control] = "input"
        cell["parameters"][f"{stem}_{control.rstrip('0')}"] = control


def _forget_unused(nets: _Nets, names: Iterable[str]) -> None:
    """Drop registers whose every load has a register of its own by now."""
    for name in set(names):
        bit = nets.cells[name]["connections"]["Q"][0]
        left = [
            load
            for load in nets.loads[bit]
            if load[0] == "" or nets.cells[load[0]]["connections"].get(load[1]) == [bit]
        ]
        nets.loads[bit] = left
        if not left:
            del nets.cells[name]


def _absorb_word(nets: _Nets, cell: dict[str, Any]) -> None:
    """Give a block RAM the registers behind its outputs, those of its whole word or none."""
    pins = _pins_named(cell, r"DO[AB]\d+")
    pins = [pin for pin in pins if nets.loads[cell["connections"][pin][0]]]
    bits = [cell["connections"][pin][0] for pin in pins]
    names = nets.registers_after(bits)
    shared = nets.common(names) if names else None
    if not names or shared is None:
        return
    if shared.clock not in cell["connections"]["CLKB"]:
        return
    _replace(cell, pins, [nets.output_of(bit) for bit in bits])
    for port in "AB":
        cell["parameters"][f"REGMODE_{port}"] = "OUTREG"
        cell["connections"][f"OCE{port}"] = [shared.enable]
    for name in names:
        del nets.cells[name]
