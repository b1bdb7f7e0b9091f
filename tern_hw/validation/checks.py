"""All checks of a validation as facts that JSON holds, and what became worse."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tern_hw.config import ArrayConfig
from tern_hw.costs.fpga import fitted_area
from tern_hw.gates.layer import Layer
from tern_hw.validation import area, cycles, switching_record
from tern_hw.validation.configurations import HELD_OUT, TRAINING

__all__ = ["record_anew", "recorded_parts", "validation_facts"]

Notify = Callable[[str], None]
#: By how much a synthesised area may move from the record, in shares of it.
AREA_SLACK: Final = 0.02
#: Held-out arrays that are synthesised anew by default.
SAMPLES: Final = 2


def recorded_parts(parts: Sequence[str]) -> list[str]:
    """Return the parts whose measurements are recorded, or need no record."""
    return [part for part in parts if part != "area" or area.RECORD.is_file()]


def validation_facts(
    parts: Sequence[str], *, full: bool, notify: Notify, layers: Sequence[Layer] = ()
) -> dict[str, Any]:
    """Return predicted, measured and error of each part, and a sentence on each regression.

    Parameters
    ----------
    parts
        Of "cycles", "area", "switching".
    full
        All that is recorded, not a few.
    notify
        Called with a sentence on what goes on.
    layers
        Whose switching is measured instead of that of seeded ones.

    Raises
    ------
    TernError
        If a tool or a record is missing.
    """
    makers: dict[str, Callable[[bool, Notify], dict[str, Any]]] = {
        "cycles": _cycles,
        "area": _area,
        "switching": lambda full, notify: switching_record.switching_facts(full, layers, notify),
    }
    if "area" in parts:
        area.read_record()  # a missing one is told before anything is simulated
    facts: dict[str, Any] = {"format": 1}
    regressions: list[str] = []
    for part in parts:
        facts[part] = makers[part](full, notify)
        regressions += facts[part].pop("regressions")
    return facts | {"regressions": regressions}


def record_anew(
    parts: Sequence[str],
    notify: Notify,
    layers: Sequence[Layer] = (),
    made_by: Mapping[str, Any] | None = None,
) -> None:
    """Measure everything that has a record, fit the area's coefficients, write the records.

    Where a model's layers are given, of switching these alone; `made_by` is what made them.
    """
    if "area" in parts:
        area.refit(TRAINING, HELD_OUT, notify=notify)
    if "switching" in parts and layers:
        switching_record.record_layers(layers, made_by or {}, notify)
    elif "switching" in parts:
        switching_record.record_seeded(notify)


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
