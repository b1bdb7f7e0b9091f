"""Coefficients with their sources: read from a TOML file, and refused without one."""

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from tern_hw.errors import TernError

__all__ = ["COMPONENTS", "Coefficient", "Table", "read_table"]

#: Every component that a table may price, and the unit that it must have.
COMPONENTS: Final[dict[str, dict[str, str]]] = {
    "technology": {
        **dict.fromkeys(
            (
                "energy.int_add_8",
                "energy.int_add_32",
                "energy.int_mul_8",
                "energy.int_mul_32",
                "energy.bf16_add",
                "energy.bf16_mul",
                "energy.fp16_add",
                "energy.fp16_mul",
                "energy.fp32_add",
                "energy.fp32_mul",
                "energy.sram_8kb",
                "energy.sram_32kb",
                "energy.sram_1mb",
                "energy.gate",
                "energy.register_bit",
            ),
            "pJ",
        ),
        **dict.fromkeys(
            (
                "area.int_add_8",
                "area.int_add_32",
                "area.int_mul_8",
                "area.int_mul_32",
                "area.bf16_add",
                "area.bf16_mul",
                "area.fp16_add",
                "area.fp16_mul",
                "area.fp32_add",
                "area.fp32_mul",
                "area.gate",
                "area.register_bit",
                "area.sram_bit",
            ),
            "um2",
        ),
        "static.power": "mW/mm2",
    },
    "memory": {"energy": "pJ/bit", "bandwidth": "GB/s"},
    "assumptions": {"data.zero_fraction": "1"},
}
#: Fields of a coefficient; those that must be there, and those that may.
REQUIRED: Final = ("value", "low", "high", "unit", "source")
OPTIONAL: Final = ("node", "note")
#: Fields of the header.
HEADER: Final = ("name", "kind", "node", "about", "base")
#: Least length of a source that a reader can follow.
SHORTEST_SOURCE: Final = 10
#: Largest file that is read, in bytes.
MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Coefficient:
    """A number with its unit, its bounds, and where it comes from."""

    value: float
    low: float
    high: float
    #: As in "pJ", "um2", "pJ/bit".
    unit: str
    #: Process or interface it holds for.
    node: str
    #: Paper and table, library and cell, or "derived: ..." with both.
    source: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """The checked content of a file: coefficients by component."""

    name: str
    #: "technology", "memory" or "assumptions".
    kind: str
    about: str
    #: Coefficients by component; of memories by "<memory>.<component>".
    coefficients: dict[str, Coefficient]
    #: What each memory's energy is of, by memory.
    boundaries: dict[str, str]
    #: A table that the file's own coefficients go over, or "".
    base: str = ""


def read_table(path: Path) -> Table:
    """Read and check a table.

    Parameters
    ----------
    path : Path
        A TOML file: [table] with name, kind and about, then a section for each component (for a
        memory: its boundary, then energy and bandwidth) with value, low, high, unit and source.

    Raises
    ------
    TernError
        Naming file, line, key, rule and value: if it is not TOML, a component is unknown, a
        field is missing or unknown, a unit is another, a source is missing, or value and bounds
        are not positive and in order.
    """
    return _Reader(path).table()


class _Reader:
    """Checks one file; knows its text, to say at which line something is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.stat().st_size > MAX_BYTES:
                raise TernError(f"{path} must be at most {MAX_BYTES} bytes")
            self.text = path.read_bytes().decode("utf-8")
            self.document = tomllib.loads(self.text)
        except OSError as error:
            raise TernError(f"{path} must be a readable file ({error.strerror})") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TernError(f"{path} must be TOML in UTF-8 ({error})") from None

    def table(self) -> Table:
        header = self._header()
        kind = header["kind"]
        node = header.get("node", "")
        coefficients: dict[str, Coefficient] = {}
        boundaries: dict[str, str] = {}
        for section, content in self.document.items():
            if section == "table":
                continue
            fields = dict(self._section(section, content))
            if kind == "memory":
                boundaries[section] = self._boundary(section, fields)
            for component, entry in fields.items():
                key = f"{section}.{component}"
                unit = self._unit_of(kind, section, component)
                coefficients[key] = self._coefficient(key, entry, unit, node)
        self._check_memories(boundaries, coefficients)
        return Table(
            header["name"], kind, header["about"], coefficients, boundaries, header.get("base", "")
        )

    def _header(self) -> dict[str, str]:
        if "table" not in self.document:
            self._refuse("table", "a section with name, kind and about", None)
        header = dict(self._section("table", self.document["table"]))
        for name, value in header.items():
            if name not in HEADER:
                self._refuse(f"table.{name}", f"one of {', '.join(HEADER)}", name)
            if not isinstance(value, str) or not value:
                self._refuse(f"table.{name}", "a text", value)
        for name in ("name", "kind", "about"):
            if name not in header:
                self._refuse(f"table.{name}", "given", None)
        if header["kind"] not in COMPONENTS:
            self._refuse("table.kind", f"one of {', '.join(COMPONENTS)}", header["kind"])
        return header

    def _section(self, key: str, content: Any) -> dict[str, Any]:
        if not isinstance(content, dict):
            self._refuse(key, "a section", content)
        return content

    def _boundary(self, section: str, fields: dict[str, Any]) -> str:
        boundary = fields.pop("boundary", None)
        if not isinstance(boundary, str) or not boundary:
            self._refuse(f"{section}.boundary", "a text that says what the energy is of", boundary)
        return boundary

    def _unit_of(self, kind: str, section: str, component: str) -> str:
        known = COMPONENTS[kind]
        name = component if kind == "memory" else f"{section}.{component}"
        if name not in known:
            self._refuse(f"{section}.{component}", f"one of {', '.join(known)}", name)
        return known[name]

    def _coefficient(self, key: str, entry: Any, unit: str, node: str) -> Coefficient:
        fields = {"node": node, "note": ""} | self._section(key, entry)
        for name in fields:
            if name not in REQUIRED + OPTIONAL:
                self._refuse(f"{key}.{name}", f"one of {', '.join(REQUIRED + OPTIONAL)}", name)
        for name in REQUIRED:
            if name not in fields:
                self._refuse(f"{key}.{name}", "given", None)
        for name in ("value", "low", "high"):
            self._check_number(f"{key}.{name}", fields[name])
        if fields["unit"] != unit:
            self._refuse(f"{key}.unit", repr(unit), fields["unit"])
        for name, shortest in (("source", SHORTEST_SOURCE), ("node", 1), ("note", 0)):
            if not isinstance(fields[name], str) or len(fields[name].strip()) < shortest:
                rule = "a text that a reader can follow" if name == "source" else "a text"
                self._refuse(f"{key}.{name}", rule, fields[name])
        if not fields["low"] <= fields["value"] <= fields["high"]:
            bounds = f"from low ({fields['low']}) to high ({fields['high']})"
            self._refuse(f"{key}.value", bounds, fields["value"])
        numbers = {name: float(fields[name]) for name in ("value", "low", "high")}
        return Coefficient(**(fields | numbers))

    def _check_number(self, key: str, value: Any) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            self._refuse(key, "a positive number", value)

    def _check_memories(self, names: dict[str, str], found: dict[str, Coefficient]) -> None:
        for name in names:
            for component in COMPONENTS["memory"]:
                if f"{name}.{component}" not in found:
                    self._refuse(f"{name}.{component}", "given", None)

    def _refuse(self, key: str, rule: str, value: Any) -> NoReturn:
        given = "missing" if value is None else f"{value!r:.60}"
        raise TernError(f"{self.path}:{self._line(key)}: {key} must be {rule}, not {given}")

    def _line(self, key: str) -> int:
        """Return the line of a key, or of the section that lacks it, counted from 1."""
        parts = key.split(".")
        lines = self.text.splitlines()
        for count in range(len(parts), 0, -1):
            header = re.compile(rf"\s*\[\s*{re.escape('.'.join(parts[:count]))}\s*\]")
            at = next((line for line, text in enumerate(lines) if header.match(text)), None)
            if at is None:
                continue
            field = re.compile(rf"\s*{re.escape('.'.join(parts[count:]))}\s*[=.]")
            for line in range(at + 1, len(lines)):
                if lines[line].lstrip().startswith("[") or count == len(parts):
                    break
                if field.match(lines[line]):
                    return line + 1
            return at + 1
        return 1
