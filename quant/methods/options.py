"""The options of a method as a command line has them: `name=value`, read by the field's type."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from quant.methods import MethodConfig, method_config, named_method
from tern_hw.cli import integer
from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize

__all__ = ["parse_options"]

#: What a switch may be set to.
BOOLEANS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
#: What an option that may be unset is set to for that.
UNSET: Final = "none"


def parse_options(
    method: str, options: Sequence[str], base: Mapping[str, Any] | None = None
) -> MethodConfig:
    """Return a method's options from `name=value` texts.

    Parameters
    ----------
    method : str
        The method's name.
    options : sequence of str
        As in ``["ste=identity", "group_size=row", "shift=off", "layers=*.mlp.*,*.q_proj"]``; each
        name at most once.
    base : mapping, optional
        Options that hold where the texts say nothing else, as values: a configuration file's, or
        those that have a command line option of their own.

    Raises
    ------
    TernError
        If the method or an option is unknown, an option is given twice, or a value is not of the
        option's type or range.
    """
    kinds = typing.get_type_hints(named_method(method).config_type)
    fields = dataclasses.fields(named_method(method).config_type)
    known = {field.name: kinds[field.name] for field in fields}
    given: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise TernError(f"option must be written name=value, not {option!r}")
        if name not in known:
            names = ", ".join(known)
            raise TernError(f"option of method {method} must be one of {names}, not {name!r}")
        if name in given:
            raise TernError(f"option {name} must be given once, not again as {option!r}")
        given[name] = _value(name, known[name], text.strip())
    return method_config(method, {**(base or {}), **given})


def _value(name: str, kind: Any, text: str) -> Any:
    """Return an option's value from its text, by the type of its field."""
    if kind == GroupSize:
        return text if text == "row" else _number(name, int, text, 'either "row" or an integer')
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        # A value, or none: the only union that an option is made of.
        kinds = [part for part in typing.get_args(kind) if part is not types.NoneType]
        return None if text == UNSET else _value(name, kinds[0], text)
    if typing.get_origin(kind) is tuple:
        part = typing.get_args(kind)[0]
        return tuple(_value(name, part, each.strip()) for each in text.split(","))
    if kind is bool:
        if text not in BOOLEANS:
            raise TernError(f"{name} must be one of {', '.join(BOOLEANS)}, not {text!r}")
        return BOOLEANS[text]
    if kind is int:
        return _number(name, int, text, "an integer")
    if kind is float:
        return _number(name, float, text, "a number")
    if isinstance(kind, type) and issubclass(kind, StrEnum) and text not in list(kind):
        raise TernError(f"{name} must be one of {', '.join(kind)}, not {text!r}")
    return text


def _number(name: str, kind: type, text: str, wanted: str) -> int | float:
    try:
        value = integer(text) if kind is int else float(text)
    except ValueError:
        raise TernError(f"{name} must be {wanted}, not {text!r}") from None
    if not math.isfinite(value):
        raise TernError(f"{name} must be a finite number, not {text}")
    return value
