"""Ratios of switching beside their record: seeded layers, and a model's that nothing was fitted to.

A model's layers need the model, which is not part of this repository: what their gates took is
recorded, with what made it, and the tables of today are held to that.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tern_hw.errors import TernError
from tern_hw.files import write_atomic
from tern_hw.gates.layer import Layer
from tern_hw.validation import switching
from tern_hw.validation.area import COMMAND

__all__ = ["record_layers", "record_seeded", "switching_facts"]

Notify = Callable[[str], None]
RECORD: Final = Path(__file__).parent / "switching.json"
#: By how much a ratio's error may exceed the recorded one.
SLACK: Final = 0.02


def switching_facts(full: bool, layers: Sequence[Layer], notify: Notify) -> dict[str, Any]:
    """Return the ratios measured now, those of the record, and a sentence on each regression.

    Parameters
    ----------
    full
        All seeded cases, not one.
    layers
        Measure these instead; those without a record are held to the bar.
    """
    record = _read()
    errors = record["errors"] | {each["name"]: each["error"] for each in record["layers"]}
    cases: Sequence[switching.RatioCase] = switching.FULL if full else switching.QUICK
    if layers:
        cases = [case for layer in layers for case in switching.layer_cases(layer)]
    ratios = []
    for case in cases:
        if not layers and case.name not in errors:
            raise TernError(f"{RECORD.name} must have {case.name!r}: run --refit")
        notify(f"gates: {case.name}")
        (found,) = switching.check_ratios((case,))
        ratios.append(found | {"recorded_error": errors.get(case.name)})
    recorded = [switching.beside_record(each) for each in record["layers"]]
    regressions = [sentence for each in (*ratios, *recorded) for sentence in _worse(each)]
    return {
        "scope": switching.SCOPE,
        "ratios": ratios,
        "recorded": recorded,
        "regressions": regressions,
    }


def _worse(found: Mapping[str, Any]) -> list[str]:
    recorded = found["recorded_error"]
    limit, rule = found["bar"], f"within {found['bar']:.0%}"
    if recorded is not None:
        limit, rule = abs(recorded) + SLACK, f"at most the recorded {recorded:+.1%}"
    if abs(found["error"]) <= limit:
        return []
    return [f"{found['name']}: error must be {rule}, not {found['error']:+.1%}"]


def record_seeded(notify: Notify) -> None:
    """Measure all seeded cases and record their errors; a model's layers stay as they are."""
    notify("gates: ratios of all cases")
    errors = {each["name"]: each["error"] for each in switching.check_ratios(switching.FULL)}
    kept = _read()["layers"] if RECORD.is_file() else []
    _write({"command": COMMAND, "errors": errors, "layers": kept})


def record_layers(layers: Sequence[Layer], made_by: Mapping[str, Any], notify: Notify) -> None:
    """Measure a model's layers and record them in place of those recorded before.

    Parameters
    ----------
    layers
    made_by
        Method, origin and versions of the artifact.
    """
    found = []
    for case in (case for layer in layers for case in switching.layer_cases(layer)):
        notify(f"gates: {case.name}")
        (each,) = switching.check_ratios((case,))
        found.append(switching.to_record(case, each) | {"made_by": dict(made_by)})
    _write(_read() | {"layers": found})


def _read() -> dict[str, Any]:
    if not RECORD.is_file():
        raise TernError(f"{RECORD.name} must be written by {COMMAND} first, and is missing")
    try:
        record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
        return {"layers": []} | record | {"errors": dict(record["errors"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TernError(f"{RECORD.name} must be a record of --refit, not this ({error})") from None


def _write(record: Mapping[str, Any]) -> None:
    write_atomic(RECORD, json.dumps(record, indent=2) + "\n")
