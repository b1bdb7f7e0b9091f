"""Which fields of a configuration go together, and the sentence where they do not."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from tern_hw.config.checks import integer_within
from tern_hw.config.formats import FP16_MAX_UNITS, Activation, Weights
from tern_hw.errors import TernError

if TYPE_CHECKING:
    from tern_hw.config.array import ArrayConfig

__all__ = ["ALIGNED_BITS", "check_together"]

#: Widths that aligned activations may have; one bit more would hold every binary16 exactly.
ALIGNED_BITS: Final = (8, FP16_MAX_UNITS.bit_length())


def check_together(config: ArrayConfig) -> None:
    """Refuse fields, each within its range, that do not go together.

    Raises
    ------
    TernError
        Naming the field, its rule and its value.
    """
    if config.weights is Weights.TERNARY:
        _check_group(config)
        _check_aligned(config)
        _check_products(config)
    else:
        _check_plain(config)


def _check_plain(config: ArrayConfig) -> None:
    """Refuse what ternary weights alone have."""
    if config.activation is not Activation.FP16:
        raise TernError(f"activation must be fp16 with fp16 weights, not {config.activation}")
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        ternary = field.name in ("group_size", "packing", "aligned", "products")
        if ternary and value != field.default:
            raise TernError(
                f"{field.name} must be left at {field.default} with fp16 weights, not {value}"
            )


def _check_aligned(config: ArrayConfig) -> None:
    if config.aligned is None:
        return
    integer_within("aligned", config.aligned, *ALIGNED_BITS)
    if config.activation is not Activation.FP16:
        raise TernError(f"aligned must stand beside activation fp16, not {config.activation}")


def _check_products(config: ArrayConfig) -> None:
    group = config.group_size
    if config.products == 1 and group != "row" and group < 2 * config.lanes:
        raise TernError(
            f"products must be 2 where a group is done in a cycle (group_size = {group}, "
            f"lanes = {config.lanes}), not 1"
        )


def _check_group(config: ArrayConfig) -> None:
    group = config.group_size
    if group == "row":
        return
    if isinstance(group, bool) or not isinstance(group, int) or group < 1:
        raise TernError(f'group_size must be "row" or a positive integer, not {group!r}')
    if group % config.lanes and config.lanes % group:
        raise TernError(
            f'group_size must be "row", a multiple of lanes or a divisor of lanes '
            f"(lanes = {config.lanes}), not {group}"
        )
    if group > max(config.max_k, config.lanes):
        raise TernError(
            f'group_size must be at most max_k (= {config.max_k}) or "row", not {group}'
        )
