"""The fitted area of arrays: measured by synthesis, fitted to some, judged by others."""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from tern_hw.config import ArrayConfig
from tern_hw.costs.fpga import PARTS, FpgaArea, features, fitted_area, part_of
from tern_hw.errors import TernError
from tern_hw.files import write_atomic
from tern_hw.flows.synthesis import SynthesisOptions, yosys_version
from tern_hw.flows.targets import find_target
from tern_hw.synthesis import measure

__all__ = [
    "FIT",
    "RECORD",
    "fit",
    "judge",
    "measured_parts",
    "read_record",
    "refit",
]

TARGET: Final = "ecp5"
#: Frozen coefficients, and what was measured when they were.
FIT: Final = Path(__file__).parent.parent / "costs" / "fitted" / f"{TARGET}.toml"
RECORD: Final = Path(__file__).parent / "area.json"
#: Bars on the held-out arrays, and how many those must be.
MEDIAN_BAR: Final = 0.10
WORST_BAR: Final = 0.20
LEAST_HELD_OUT: Final = 20
COMMAND: Final = "python -m tern_hw.validate --refit"


def measured_parts(
    config: ArrayConfig, notify: Callable[[str], None] = lambda text: None
) -> dict[str, float]:
    """Return the area of each part of a synthesised array, in LUT4-equivalents."""
    options = SynthesisOptions(target=find_target(TARGET))
    areas = dict.fromkeys(PARTS, 0.0)
    for block, count in measure(config, "array", options, notify=notify).synthesis.parts.items():
        areas[part_of(block)] += count.area
    return areas


def fit(measured: Sequence[tuple[ArrayConfig, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Fit the coefficients of each part to measured arrays.

    Least squares of the error in shares of the array's area, no coefficient below 0: a feature
    that would have one is left out (0), and the others are fitted anew.
    """
    found = {}
    for part in PARTS:
        rows = [features(config)[part] for config, _ in measured]
        weights = np.array([1 / sum(areas.values()) for _, areas in measured])
        matrix = np.array([[*row.values()] for row in rows], float) * weights[:, None]
        wanted = np.array([areas[part] for _, areas in measured]) * weights
        solved = _non_negative(matrix, wanted)
        found[part] = {
            name: float(f"{value:.5g}") for name, value in zip(rows[0], solved, strict=True)
        }
    return found


def _non_negative(matrix: Any, wanted: Any) -> Any:
    used = list(range(matrix.shape[1]))
    solved = np.zeros(matrix.shape[1])
    while used:
        values = np.linalg.lstsq(matrix[:, used], wanted, rcond=None)[0]
        if values.min() >= 0:
            solved[used] = values
            break
        used.pop(int(values.argmin()))
    return solved


def refit(
    training: Iterable[ArrayConfig],
    held_out: Iterable[ArrayConfig],
    *,
    notify: Callable[[str], None] = lambda text: None,
    fit_path: Path = FIT,
    record_path: Path = RECORD,
) -> None:
    """Measure, fit, write the coefficients, and then judge them by arrays they have not seen.

    The training arrays come first, and the coefficients are written before a held-out one is
    looked at. What is already in the store of syntheses is not synthesised again.
    """
    entries = [_entry(config, "training", notify) for config in training]
    measured = [(ArrayConfig.from_dict(each["configuration"]), each["parts"]) for each in entries]
    text = _fit_text(fit(measured), len(measured))
    fit_path.parent.mkdir(exist_ok=True)
    write_atomic(fit_path, text)
    entries += [_entry(config, "held out", notify) for config in held_out]
    tools = f"Yosys {yosys_version()}"
    record = {"command": COMMAND, "target": TARGET, "tools": tools, "arrays": entries}
    lines = json.dumps(record | {"arrays": []}, indent=2).removesuffix("[]\n}")
    arrays = ",\n".join("    " + json.dumps(each) for each in entries)
    write_atomic(record_path, f"{lines}[\n{arrays}\n  ]\n}}\n")
    fitted_area.cache_clear()


def _entry(config: ArrayConfig, role: str, notify: Callable[[str], None]) -> dict[str, Any]:
    return {
        "name": config.name,
        "role": role,
        "parts": measured_parts(config, notify),
        "configuration": config.as_dict(),
    }


def _fit_text(coefficients: Mapping[str, Mapping[str, float]], count: int) -> str:
    target = find_target(TARGET)
    lines = [
        "# Written by the command below; what each feature is stands in tern_hw/costs/fpga.py.",
        "",
        "[fit]",
        f'target = "{TARGET}"',
        f'unit = "{target.area_unit}"',
        f'source = "{COMMAND}: least squares over {count} synthesised arrays"',
        f'tools = "Yosys {yosys_version()}, {target.command}"',
    ]
    for part, values in coefficients.items():
        lines += ["", f"[coefficients.{part}]"]
        lines += [f"{name} = {value!r}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def read_record(path: Path = RECORD) -> dict[str, Any]:
    """Return what was measured when the coefficients were frozen.

    Raises
    ------
    TernError
        If the file is missing or no record.
    """
    if not path.is_file():
        raise TernError(f"{path.name} must be written by {COMMAND} first, and is missing")
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        roles = {each["role"] for each in record["arrays"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TernError(f"{path.name} must be a record of --refit, not this ({error})") from None
    if not roles <= {"training", "held out"}:
        raise TernError(f"{path.name} must have training and held out arrays, not {sorted(roles)}")
    return record


def judge(model: FpgaArea, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return predicted and measured area of each held-out array, and the two bars."""
    arrays = []
    for each in record["arrays"]:
        predicted = model.area(ArrayConfig.from_dict(each["configuration"]))
        measured = sum(each["parts"].values())
        arrays.append(
            {
                "name": each["name"],
                "role": each["role"],
                "predicted": round(predicted, 1),
                "measured": measured,
                "error": predicted / measured - 1,
            }
        )
    held = [abs(each["error"]) for each in arrays if each["role"] == "held out"]
    if not held:
        raise TernError("record must have held-out arrays, not none")
    median, worst = statistics.median(held), max(held)
    return {
        "unit": model.unit,
        "arrays": arrays,
        "held_out": len(held),
        "median": median,
        "worst": worst,
        "bars": {"held_out": LEAST_HELD_OUT, "median": MEDIAN_BAR, "worst": WORST_BAR},
        "enough": len(held) >= LEAST_HELD_OUT,
        "within": median <= MEDIAN_BAR and worst <= WORST_BAR,
    }
