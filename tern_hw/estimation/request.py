"""What a command line asks to be estimated: the model, the system and the inputs."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tern_hw.config import ArrayConfig, Packing
from tern_hw.costs import Inputs, Model, System, load_inputs, open_model
from tern_hw.costs.technology import ON_CHIP
from tern_hw.errors import TernError

if TYPE_CHECKING:
    import argparse

__all__ = ["Request", "make_request", "ternary_counts"]

#: Most sequences of a step.
MAX_BATCH = 65536


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that an estimate depends on."""

    model: Model
    system: System
    inputs: Inputs
    context: int
    batch: int
    #: How many of the blocks' layers of each name are ternary; None: all.
    ternary: Mapping[str, int] | None


def make_request(args: "argparse.Namespace") -> Request:
    """Return what the options ask for.

    Raises
    ------
    TernError
        If an option is out of its range, or does not go with another.
    """
    from tern_hw.shape import shaped_config

    _check_integer("context", args.context, 1 << 24)
    _check_integer("batch", args.batch, MAX_BATCH)
    model = open_model(args.model)
    inputs = _inputs(args)
    config = shaped_config(args)
    ternary = None
    if _is_artifact(args.model):
        from tern_hw.estimation.artifacts import read_artifact

        found = read_artifact(args.model, zeros=args.zeros is None)
        ternary = ternary_counts(model, found.layers)
        config = _fitted(args, config, found.group_size, found.packing)
        if found.zero_fraction is not None:
            source = f"counted in the artifact {args.model}"
            inputs = inputs.replaced("data.zero_fraction", found.zero_fraction, source)
    system = System(engine=config, clock_mhz=args.clock, float_macs=args.float_macs)
    return Request(
        model=model,
        system=system,
        inputs=inputs,
        context=args.context,
        batch=args.batch,
        ternary=ternary,
    )


def _check_integer(name: str, value: int, high: int) -> None:
    if not 1 <= value <= high:
        raise TernError(f"{name} must be an integer from 1 to {high}, not {value}")


def _inputs(args: "argparse.Namespace") -> Inputs:
    """Return the tables' coefficients, with those that the command line gives in their place."""
    inputs = load_inputs(args.technology, args.memory)
    given = "given on the command line"
    if args.bandwidth is not None:
        if args.memory == ON_CHIP:
            raise TernError(f"--bandwidth must stand without --memory {ON_CHIP}, not beside it")
        if not 0.001 <= args.bandwidth <= 100_000:
            raise TernError(f"--bandwidth must be from 0.001 to 100000 GB/s, not {args.bandwidth}")
        inputs = inputs.replaced("memory.bandwidth", args.bandwidth, given)
    if args.zeros is not None:
        if not 0 <= args.zeros < 1:
            raise TernError(f"--zeros must be from 0 to below 1, not {args.zeros}")
        inputs = inputs.replaced("data.zero_fraction", args.zeros, given)
    return inputs


def _is_artifact(name: str) -> bool:
    """Tell whether a path is a folder whose config.json is an artifact's (open_model read it)."""
    path = Path(name) / "config.json"
    if not path.is_file():
        return False
    content: dict[str, Any] = json.loads(path.read_bytes())
    return "tern_hw" in content


def _fitted(
    args: "argparse.Namespace", config: ArrayConfig, group_size: Any, packing: str
) -> ArrayConfig:
    """Return the array for an artifact: its group size and packing where none are asked for."""
    if args.config is None:
        config = dataclasses.replace(
            config,
            group_size=group_size if args.group_size is None else config.group_size,
            packing=Packing(packing) if args.packing is None else config.packing,
        )
    if config.group_size != group_size:
        raise TernError(f"group_size must be the artifact's, {group_size}, not {config.group_size}")
    return config


def ternary_counts(model: Model, layers: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Return how many layers of each name are ternary, and refuse those that the model has not.

    Parameters
    ----------
    model : Model
    layers : mapping
        (N, K) of each of an artifact's layers, by its full name.
    """
    counts = {each.name: 0 for each in model.block_linears}
    shapes = {each.name: (each.n, each.k) for each in model.block_linears}
    for name, shape in layers.items():
        short = next((each for each in counts if name.endswith(f".{each}")), None)
        if short is None or shapes[short] != shape:
            raise TernError(
                f"layer must be one of {model.family}'s blocks ({', '.join(counts)}), of its "
                f"shape, not {name} {list(shape)}"
            )
        counts[short] += 1
    return counts
