"""What a field of a configuration may hold, and the sentence where it holds something else."""

import enum
from typing import Any

from tern_hw.errors import TernError

__all__ = ["integer_within", "member_of"]


def integer_within(name: str, value: Any, low: int, high: int) -> None:
    """Refuse what is no integer from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise TernError(f"{name} must be an integer from {low} to {high}, not {value!r}")


def member_of(name: str, value: Any, kind: type[enum.StrEnum]) -> Any:
    """Return a choice by its name; refuse what is none."""
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(kind)
        raise TernError(f"{name} must be one of {choices}, not {value!r}") from None
