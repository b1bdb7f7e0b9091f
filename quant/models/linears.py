"""Find the linear layers of a model's blocks: what gets quantised, by name."""

import difflib
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from tern_hw.errors import TernError

__all__ = [
    "block_linears",
    "check_unshared",
    "named_linear",
    "named_linears",
    "select_linears",
    "without_block",
]


def block_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Return every `nn.Linear` inside the model's repeated blocks, by module name, in order.

    A block is an entry of an `nn.ModuleList`; embeddings, lm_head and projections around the
    blocks lie outside (the convention of BitNet, Spectra and ParetoQ: those stay as they are).

    Raises
    ------
    TernError
        If there is none, as in models whose blocks hold other kinds of layers.
    """
    blocks = tuple(
        f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList)
    )
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(blocks)
    }
    if not linears:
        kind = type(model).__name__
        raise TernError(f"model must have linear layers in its blocks, not none as {kind} has")
    return linears


def select_linears(linears: dict[str, nn.Linear], globs: Sequence[str]) -> dict[str, nn.Linear]:
    """Return the layers whose name matches any of the globs; each glob must match something."""
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in linears):
            raise TernError(
                f"layers must match the name of a linear layer, not {glob!r}{_like(glob, linears)}"
            )
    return {
        name: linear
        for name, linear in linears.items()
        if any(fnmatchcase(name, glob) for glob in globs)
    }


def named_linear(model: nn.Module, name: str) -> nn.Linear:
    """Return one layer of the blocks by its full name."""
    return named_linears(model, [name])[name]


def named_linears(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Linear]:
    """Return layers of the blocks by their full names, in that order."""
    linears = block_linears(model)
    for name in names:
        if name not in linears:
            raise TernError(
                f"layer must be a linear layer of a block, not {name!r}{_like(name, linears)}"
            )
    return {name: linears[name] for name in names}


def check_unshared(model: nn.Module, linears: Mapping[str, nn.Linear]) -> None:
    """Refuse a layer whose weight also serves under another name: it could not change alone."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter.data_ptr(), []).append(name)
    for name, linear in linears.items():
        others = [other for other in names[linear.weight.data_ptr()] if other != f"{name}.weight"]
        if others:
            raise TernError(
                f"{name}.weight must be a tensor of its own, not shared with {others[0]}"
            )


def without_block(name: str) -> str:
    """Return a layer's name below its block: model.layers.7.mlp.up_proj is mlp.up_proj."""
    return re.sub(r"^.*?\.\d+\.", "", name)


def _like(name: str, names: Sequence[str] | dict[str, nn.Linear]) -> str:
    """Return a hint at the names most like a mistaken one."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5) or list(names)[:1]
    return f" (there is {close[0]})"
