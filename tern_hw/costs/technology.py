"""The inputs of an estimate: a technology's, a memory's and the data's coefficients together."""

import dataclasses
import difflib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from tern_hw.costs.coefficients import Coefficient, Table, read_table
from tern_hw.errors import TernError

__all__ = [
    "MEMORIES",
    "ON_CHIP",
    "TECHNOLOGIES",
    "End",
    "Inputs",
    "Values",
    "load_inputs",
    "load_technology",
]

FOLDER: Final = Path(__file__).resolve().parent / "tables"
#: Technologies that come with the toolkit.
TECHNOLOGIES: Final = ("45nm", "7nm")
#: Off-chip memories that come with it.
MEMORIES: Final = ("lpddr5", "ddr4", "gddr6", "hbm2")
#: Weights in on-chip memory of 1 MB banks, at the technology's price and never late.
ON_CHIP: Final = "sram"
#: Which of a coefficient's three numbers.
End = Literal["low", "value", "high"]


class Values(dict[str, float]):
    """Numbers by key; a key without one is refused, never defaulted."""

    def __init__(self, content: dict[str, float], tables: str) -> None:
        super().__init__(content)
        self.tables = tables

    def __missing__(self, key: str) -> float:
        raise TernError(f"{key} must be in one of the tables, not missing in {self.tables}")


@dataclass(frozen=True)
class Inputs:
    """Coefficients by key: "energy.*", "area.*", "static.*", "memory.*", "data.*"."""

    technology: str
    memory: str
    #: What the memory's energy is of.
    boundary: str
    coefficients: dict[str, Coefficient]

    def values(self, end: End = "value", *, only: str | None = None) -> Values:
        """Return every coefficient's number: its value, or another end of all or `only` of one."""
        return self.mixed({key: end for key in self.coefficients if only in (None, key)})

    def mixed(self, ends: dict[str, End]) -> Values:
        """Return every coefficient's value, or the end that `ends` names for it."""
        numbers = {
            key: float(getattr(coefficient, ends.get(key, "value")))
            for key, coefficient in self.coefficients.items()
        }
        return Values(numbers, f"{self.technology}, {self.memory}")

    def replaced(self, key: str, value: float, source: str) -> "Inputs":
        """Return the inputs with one number that is known here: all three ends are it."""
        new = dataclasses.replace(
            self.coefficients[key], value=value, low=value, high=value, source=source, note=""
        )
        return dataclasses.replace(self, coefficients=self.coefficients | {key: new})


def load_inputs(technology: str, memory: str) -> Inputs:
    """Return the coefficients of a technology and a memory, with the assumptions on data.

    Parameters
    ----------
    technology : str
        One of `TECHNOLOGIES`, or the path of a TOML file.
    memory : str
        One of `MEMORIES`, `ON_CHIP`, or "<path of a TOML file>:<name of a memory in it>".

    Raises
    ------
    TernError
        If there is no such table or memory, or a file is not as `read_table` demands.
    """
    table = load_technology(technology)
    boundary, chosen = _memory(memory, table)
    assumptions = _packaged("assumptions").coefficients
    return Inputs(table.name, memory, boundary, table.coefficients | chosen | assumptions)


def load_technology(name: str) -> Table:
    """Return a technology that comes with the toolkit, or the one of a TOML file.

    A file whose header names a `base` has that technology's coefficients, and its own over them.
    """
    if name in TECHNOLOGIES:
        return _packaged(name)
    table = _file(name, "technology", TECHNOLOGIES)
    if not table.base:
        return table
    if table.base not in TECHNOLOGIES:
        choices = ", ".join(TECHNOLOGIES)
        raise TernError(f"{name}: table.base must be one of {choices}, not {table.base!r}")
    under = _packaged(table.base).coefficients
    return dataclasses.replace(table, coefficients=under | table.coefficients)


def _memory(name: str, technology: Table) -> tuple[str, dict[str, Coefficient]]:
    """Return a memory's boundary and its coefficients as "memory.*"."""
    if name == ON_CHIP:
        bank = technology.coefficients.get("energy.sram_1mb")
        if bank is None:
            raise TernError(
                f"energy.sram_1mb must be in the technology, not missing in {technology.name}"
            )
        bits = {end: getattr(bank, end) / 64 for end in ("value", "low", "high")}
        a_bit = dataclasses.replace(bank, **bits, unit="pJ/bit")
        return "banks of 1 MB on the chip", {"memory.energy": a_bit}
    if name in MEMORIES:
        table, chosen = _packaged("memories"), name
    else:
        path, _, chosen = name.rpartition(":")
        table = _file(path or name, "memory", (*MEMORIES, ON_CHIP))
        if chosen not in table.boundaries:
            choices = ", ".join(table.boundaries)
            raise TernError(f"memory must be one of {path}'s ({choices}), not {chosen!r}")
    own = {
        f"memory.{key.partition('.')[2]}": coefficient
        for key, coefficient in table.coefficients.items()
        if key.partition(".")[0] == chosen
    }
    return table.boundaries[chosen], own


@lru_cache
def _packaged(name: str) -> Table:
    return read_table(FOLDER / f"{name}.toml")


def _file(name: str, kind: str, known: tuple[str, ...]) -> Table:
    """Return the table of a user's file; a name that is no path is taken for a mistyped one."""
    if not name.endswith(".toml"):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" (there is {close[0]})" if close else ""
        raise TernError(
            f"{kind} must be one of {', '.join(known)} or a .toml file, not {name!r}{hint}"
        )
    table = read_table(Path(name))
    if table.kind != kind:
        raise TernError(f"{name}: table.kind must be {kind!r} here, not {table.kind!r}")
    return table
