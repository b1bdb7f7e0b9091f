"""The axes of a sweep: options of an estimate, each with the values that it takes in turn."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tern_hw.errors import TernError

__all__ = ["DEFAULTS", "FIXED", "Axis", "axis_actions", "read_axes", "spelled"]

#: Options of an estimate that say what is asked, not which design: these take one value.
FIXED: Final = ("model", "context", "batch", "zeros", "technology", "config", "max_k", "max_n")
#: Options that make no design of their own: another name for a value of --dot, and reports.
NOT_OFFERED: Final = ("target", "plot", "fpga")
#: What is swept where nothing is asked for. Group size and activation are not: they change what
#: the model answers, which no figure here sees.
DEFAULTS: Final[dict[str, str]] = {
    "lanes": "16,32,64,128,256",
    "rows": "1,2,4,8,16",
    "packing": "2bit,base3",
}
#: What a list of an option's values is called.
KINDS: Final[dict[Any, str]] = {None: "names", float: "numbers"}


@dataclass(frozen=True)
class Axis:
    """An option of an estimate, and the values that a sweep gives it."""

    #: Name in the parsed arguments, as "group_size".
    name: str
    #: Option, as "--group-size".
    option: str
    values: tuple[Any, ...]
    #: The user asked for these values: each must be good for a point.
    given: bool = True


def axis_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the options of an estimate that a sweep may vary: all that shape the system."""
    apart = (*FIXED, *NOT_OFFERED)
    return [
        each
        for each in parser._actions
        if each.nargs is None and each.option_strings and each.dest not in apart
    ]


def read_axes(estimate: argparse.ArgumentParser, args: argparse.Namespace) -> list[Axis]:
    """Return the axes that a sweep's options ask for, and the defaults.

    Parameters
    ----------
    estimate : ArgumentParser
        Of `tern_hw.estimate`: its options are the axes, its types read the values.
    args : Namespace
        Lists as typed ("64,128"), None where an option is not given. A named configuration keeps
        its own shape where no option says otherwise.

    Raises
    ------
    TernError
        If a list is not one of values of the option's kind, or has a value twice.
    """
    axes = []
    for action in axis_actions(estimate):
        text = getattr(args, action.dest)
        given = text is not None
        if not given and args.config is None:
            text = DEFAULTS.get(action.dest)
        if text is not None:
            option = action.option_strings[-1]
            values = _values(option, text, action.type)
            axes.append(Axis(action.dest, option, values, given))
    return axes


def _values(option: str, text: str, kind: Any) -> tuple[Any, ...]:
    read: Callable[[str], Any] = kind or str
    try:
        values = [read(each) for each in text.split(",")]
    except ValueError:
        values = [""]
    if "" in values:
        name = KINDS.get(kind, "integers")
        raise TernError(f"{option} must be {name} with commas between them, not {text!r}")
    for value in values:
        if values.count(value) > 1:
            raise TernError(f"{option} must have each value once, not {value!r} again")
    return tuple(values)


def spelled(value: Any) -> str:
    """Return a value as a command line has it: 500 for 500.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
