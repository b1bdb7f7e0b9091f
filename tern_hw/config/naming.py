"""A configuration's name: the module that is emitted of it, and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tern_hw.config.formats import Dot, OutputFormat, Weights

if TYPE_CHECKING:
    from tern_hw.config.array import ArrayConfig

__all__ = ["module_name"]


def module_name(config: ArrayConfig) -> str:
    """Return a name that two configurations share only where their fields are equal.

    Of the less usual fields it tells those that are not at their defaults.
    """
    activation = config.activation + ("" if config.aligned is None else f"a{config.aligned}")
    parts = ["tern", f"{config.lanes}x{config.rows}", activation]
    if config.weights is Weights.TERNARY:
        group = "row" if config.group_size == "row" else f"g{config.group_size}"
        parts += [group, config.packing]
    else:
        parts[0] = "mac"
    if config.output is not OutputFormat.FP32:
        parts.append(f"o{config.output}")
    if config.max_k != 16384:
        parts.append(f"k{config.max_k}")
    if config.max_n != 65536:
        parts.append(f"n{config.max_n}")
    if config.dot is not Dot.TREE:
        parts.append(config.dot)
    if config.products != 2:
        parts.append(f"p{config.products}")
    return "_".join(str(part) for part in parts)
