"""All checks of a validation as facts that JSON holds, and what became worse."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tern_hw.config import ArrayConfig
from tern_hw.costs.fpga import fitted_area
from tern_hw.errors import TernError
from tern_hw.files import write_atomic
from tern_hw.validation import area, cycles, switching
from tern_hw.validation.configurations import HELD_OUT, TRAINING

__all__ = ["record_anew", "recorded_parts", "validation_facts"]

Notify = Callable[[str], None]
#: Errors of the ratios when they were recorded.
RATIOS: Final = Path(__file__).parent / "switching.json"
#: By how much a ratio's error, or a synthesised area in shares of it, may move from the record.
RATIO_SLACK: Final = 0.02
AREA_SLACK: Final = 0.02
#: Held-out arrays that are synthesised anew by default.
SAMPLES: Final = 2


def recorded_parts(parts: Sequence[str]) -> list[str]:
    """Return the parts whose measurements are recorded, or need no record."""
    return [part for part in parts if part != "area" or area.RECORD.is_file()]


def validation_facts(parts: Sequence[str], *, full: bool, notify: Notify) -> dict[str, Any]:
    """Return predicted, measured and error of each part, and a sentence on each regression.

    Raises
    ------
    TernError
        If a tool or a record is missing.
    """
    makers: dict[str, Callable[[bool, Notify], dict[str, Any]]] = {
        "cycles": _cycles,
        "area": _area,
        "switching": _switching,
    }
    if "area" in parts:
        area.read_record()  # a missing one is told before anything is simulated
    facts: dict[str, Any] = {"format": 1}
    regressions: list[str] = []
    for part in parts:
        facts[part] = makers[part](full, notify)
        regressions += facts[part].pop("regressions")
    return facts | {"regressions": regressions}


def record_anew(parts: Sequence[str], notify: Notify) -> None:
    """Measure everything that has a record, fit the area's coefficients, write the records."""
    if "area" in parts:
        area.refit(TRAINING, HELD_OUT, notify=notify)
    if "switching" in parts:
        notify("gates: ratios of all cases")
        errors = {each["name"]: each["error"] for each in switching.check_ratios(switching.FULL)}
        record = {"command": area.COMMAND, "errors": errors}
        write_atomic(RATIOS, json.dumps(record, indent=2) + "\n")


def _cycles(full: bool, notify: Notify) -> dict[str, Any]:
    configs = cycles.CONFIGURATIONS if full else cycles.QUICK
    jobs, regressions = [], []
    for config in configs:
        notify(f"simulating {config.name}")
        for check in cycles.check_cycles((config,)):
            jobs.append(
                {
                    "name": config.name,
                    "n": check.n,
                    "k": check.k,
                    "streams": check.streams.name,
                    "random_sink": bool(check.streams.backpressure),
                    "predicted": check.predicted,
                    "measured": check.measured,
                    "error": check.wrong,
                }
            )
            if check.wrong:
                where = f"{config.name}, {check.n} x {check.k}, {check.streams.name}"
                regressions.append(f"{where}: counters less model must be 0, not {check.wrong}")
    return {"jobs": jobs, "regressions": regressions}


def _area(full: bool, notify: Notify) -> dict[str, Any]:
    record = area.read_record()
    found = area.judge(fitted_area(area.TARGET), record)
    regressions = []
    if not found["within"]:
        regressions.append(
            f"area of held-out arrays must be within {area.MEDIAN_BAR:.0%} (median) and "
            f"{area.WORST_BAR:.0%} (worst), not {found['median']:.1%} and {found['worst']:.1%}"
        )
    found["again"] = [_again(each, notify) for each in _samples(record, full)]
    for each in found["again"]:
        if abs(each["error"]) > AREA_SLACK:
            regressions.append(
                f"{each['name']} must take the recorded {each['recorded']:.0f} {found['unit']} "
                f"(--refit after a change of the gateware), not {each['measured']:.0f}"
            )
    return found | {"source": fitted_area(area.TARGET).source, "regressions": regressions}


def _samples(record: Mapping[str, Any], full: bool) -> list[dict[str, Any]]:
    """Return the held-out arrays to synthesise anew: all, or the smallest."""
    held = [each for each in record["arrays"] if each["role"] == "held out"]
    held.sort(key=lambda each: sum(each["parts"].values()))
    return held if full else held[:SAMPLES]


def _again(entry: Mapping[str, Any], notify: Notify) -> dict[str, Any]:
    config = ArrayConfig.from_dict(entry["configuration"])
    recorded = sum(entry["parts"].values())
    measured = sum(area.measured_parts(config, notify).values())
    return {
        "name": config.name,
        "recorded": recorded,
        "measured": measured,
        "error": measured / recorded - 1,
    }


def _switching(full: bool, notify: Notify) -> dict[str, Any]:
    recorded = _recorded_ratios()
    ratios, regressions = [], []
    for case in switching.FULL if full else switching.QUICK:
        notify(f"gates: {case.name}")
        (found,) = switching.check_ratios((case,))
        if case.name not in recorded:
            raise TernError(f"{RATIOS.name} must have {case.name!r}: run --refit")
        found["recorded_error"] = recorded[case.name]
        ratios.append(found)
        if abs(found["error"]) > abs(recorded[case.name]) + RATIO_SLACK:
            regressions.append(
                f"{case.name}: error must be at most the recorded {recorded[case.name]:+.1%}, "
                f"not {found['error']:+.1%}"
            )
    return {"scope": switching.SCOPE, "ratios": ratios, "regressions": regressions}


def _recorded_ratios() -> dict[str, float]:
    if not RATIOS.is_file():
        raise TernError(f"{RATIOS.name} must be written by {area.COMMAND} first, and is missing")
    try:
        errors: dict[str, float] = json.loads(RATIOS.read_text(encoding="utf-8"))["errors"]
    except (OSError, ValueError, KeyError) as error:
        raise TernError(f"{RATIOS.name} must be a record of --refit, not this ({error})") from None
    return errors
