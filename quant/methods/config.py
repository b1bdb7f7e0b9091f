"""The options of a quantisation method: what all share, and how text becomes them."""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize

__all__ = ["MethodConfig", "settle_fields"]


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What all methods can be told; each adds its own options in a subclass.

    A field that is an enumeration takes its value as text, too.

    Raises
    ------
    TernError
        If a field's value is of another type, or not one of its enumeration.
    """

    #: Inputs per scale, or "row"; where it does not divide K, a row's last group is short.
    group_size: GroupSize = 128
    #: Globs of names: which linear layers of the blocks are quantised.
    layers: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        settle_fields(self, but=("group_size", "layers"))
        size = self.group_size
        if size != "row" and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise TernError(f'group_size must be "row" or a positive integer, not {size!r}')
        globs = self.layers
        if isinstance(globs, str) or not all(isinstance(glob, str) for glob in globs):
            raise TernError(f"layers must be a list of globs, not {globs!r}")
        object.__setattr__(self, "layers", tuple(globs))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return {**dataclasses.asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Build the options from a file's table; a name that is no option is refused."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                raise TernError(f"option must be one of {', '.join(known)}, not {name!r}")
        return cls(**fields)


def settle_fields(config: Any, but: tuple[str, ...] = ()) -> None:
    """Check the fields of a frozen dataclass against their types, in its `__post_init__`.

    Text becomes an enumeration and an integer a float where the field is one.

    Raises
    ------
    TernError
        If a value is of another type, or not one of the enumeration.
    """
    kinds = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        if field.name not in but:
            value = _settled(field.name, kinds[field.name], getattr(config, field.name))
            object.__setattr__(config, field.name, value)


def _settled(name: str, kind: Any, value: Any) -> Any:
    """Return a field's value in its type: text becomes an enumeration, an integer a float."""
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if value not in list(kind):
            raise TernError(f"{name} must be one of {', '.join(kind)}, not {value!r}")
        return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (kind is int and isinstance(value, bool)) or not isinstance(value, kind):
        wanted = {bool: "true or false", int: "an integer", float: "a number", str: "text"}[kind]
        raise TernError(f"{name} must be {wanted}, not {value!r}")
    return value
