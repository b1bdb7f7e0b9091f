"""The area of an array on an FPGA: physically meant features times coefficients of synthesis."""

import importlib.resources
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from tern_hw.config import Activation, ArrayConfig, Packing, Weights
from tern_hw.costs.actions import normalised_bits, row_step
from tern_hw.errors import TernError

__all__ = ["PARTS", "FpgaArea", "features", "fitted_area", "in_range", "part_of"]

#: Part -> names of its cells' blocks begin so; the last one takes all others.
PARTS: Final[dict[str, tuple[str, ...]]] = {
    "scales": tuple(f"core.scale_{digit}" for digit in range(10)),
    "results": ("core.results",),
    "rest": ("",),
}


def part_of(block: str) -> str:
    """Return the part that a block belongs to, by its dotted name in the netlist."""
    return next(part for part, heads in PARTS.items() if block.startswith(heads))


def features(config: ArrayConfig) -> dict[str, dict[str, float]]:
    """Return part -> feature -> how much of it an array has.

    Widths are bits, units those of the array as a whole.
    """
    rows, width = config.rows, config.accumulator_bits
    return {
        "scales": {"sum_bits": rows * config.sum_bits, "accumulator_bits": rows * width},
        "results": {
            "array": 1,
            "sum_bits": width,
            "normalised_bits": normalised_bits(config),
            "selected_bits": (rows - 1) * width,
        },
        "rest": _rest(config),
    }


def _rest(config: ArrayConfig) -> dict[str, float]:
    rows, lanes = config.rows, config.lanes
    two_bit = config.packing is Packing.BITS2
    half = config.activation is Activation.FP16
    return {
        "array": 1,
        "rows": rows,
        "lanes": lanes,
        "adder_bits": rows * _adder_bits(config),
        "trits_2bit": rows * lanes if two_bit else 0,
        "bytes_base3": 0 if two_bit else rows * config.row_beat_bytes,
        "lanes_fp16": lanes if half else 0,
    }


def _adder_bits(config: ArrayConfig) -> int:
    """Return the bits of a row's adders, carry-ins included, and of the lanes masked before them.

    In the tree every lane is masked by LUTs; in chains of carry cells the first of each is.
    """
    adds = {
        action: count
        for action, count in row_step(config).items()
        if action.component == "add" and action.lanes
    }
    masked = config.dot_chains * config.fixed_bits
    return masked + sum(count * (action.bits + 1) for action, count in adds.items())


@dataclass(frozen=True)
class FpgaArea:
    """Coefficients by part and feature, in `unit`, and where they come from."""

    target: str
    unit: str
    source: str
    tools: str
    coefficients: dict[str, dict[str, float]]

    def parts(self, config: ArrayConfig) -> dict[str, float]:
        """Return the area of each part of an array.

        Raises
        ------
        TernError
            If the array is none of the kind that the fit knows.
        """
        in_range(config)
        return {
            part: sum(self.coefficients[part][name] * value for name, value in found.items())
            for part, found in features(config).items()
        }

    def area(self, config: ArrayConfig) -> float:
        """Return the area of an array in `unit`."""
        return sum(self.parts(config).values())


def in_range(config: ArrayConfig) -> None:
    """Refuse arrays that the features do not describe.

    Raises
    ------
    TernError
        Saying what the fit is for.
    """
    if config.weights is not Weights.TERNARY:
        raise TernError(f"weights must be ternary for the fitted area, not {config.weights}")
    if config.aligned is not None:
        raise TernError(f"aligned must be left out for the fitted area, not {config.aligned}")
    if config.products != 2:
        raise TernError(f"products must be 2 for the fitted area, not {config.products}")
    if config.group_size == "row":
        raise TernError('group_size must be an integer for the fitted area, not "row"')


@lru_cache
def fitted_area(target: str = "ecp5") -> FpgaArea:
    """Return the fit that comes with the toolkit.

    Raises
    ------
    TernError
        If there is none for the target, or its file is damaged.
    """
    path = importlib.resources.files("tern_hw.costs") / "fitted" / f"{target}.toml"
    if not path.is_file():
        raise TernError(
            f"target must be one whose area was fitted (validate --refit), not {target!r}"
        )
    return read_fit(tomllib.loads(path.read_text(encoding="utf-8")))


def read_fit(table: Mapping[str, Any]) -> FpgaArea:
    """Return the fit of a parsed file: all coefficients there, with their source.

    Raises
    ------
    TernError
        If a part, a coefficient or the source is missing.
    """
    head = dict(table.get("fit", {}))
    for name in ("target", "unit", "source", "tools"):
        if not isinstance(head.get(name), str) or not head[name]:
            raise TernError(f"fit.{name} must be given, not {head.get(name)!r}")
    wanted = {part: set(found) for part, found in features(ArrayConfig()).items()}
    given = {part: dict(table.get("coefficients", {}).get(part, {})) for part in PARTS}
    for part, names in wanted.items():
        if set(given[part]) != names:
            raise TernError(
                f"coefficients.{part} must have {', '.join(sorted(names))}, "
                f"not {', '.join(sorted(given[part])) or 'none'}"
            )
    return FpgaArea(head["target"], head["unit"], head["source"], head["tools"], given)
