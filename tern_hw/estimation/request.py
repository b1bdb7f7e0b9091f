"""What a command line asks to be estimated: the model, the system and the inputs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tern_hw.config import Packing
from tern_hw.costs import Inputs, Model, System, load_inputs, open_model
from tern_hw.costs.technology import ON_CHIP
from tern_hw.errors import TernError

if TYPE_CHECKING:
    import argparse

    from tern_hw.estimation.artifacts import ArtifactShape

__all__ = [
    "Request",
    "Subject",
    "make_inputs",
    "make_request",
    "make_system",
    "open_subject",
    "ternary_counts",
]

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


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that an estimate is of, and what its artifact says where it is one."""

    model: Model
    artifact: "ArtifactShape | None" = None
    #: As in `Request`.
    ternary: Mapping[str, int] | None = None


def make_request(args: "argparse.Namespace") -> Request:
    """Return what the options ask for.

    Raises
    ------
    TernError
        If an option is out of its range, or does not go with another.
    """
    subject = open_subject(args)
    return Request(
        model=subject.model,
        system=make_system(args, subject),
        inputs=make_inputs(args, subject),
        context=args.context,
        batch=args.batch,
        ternary=subject.ternary,
    )


def open_subject(args: "argparse.Namespace") -> Subject:
    """Read the model that the options name, and whether its context and batch are in range."""
    _check_integer("context", args.context, 1 << 24)
    _check_integer("batch", args.batch, MAX_BATCH)
    model = open_model(args.model)
    if not _is_artifact(args.model):
        return Subject(model=model)
    from tern_hw.estimation.artifacts import read_artifact

    found = read_artifact(args.model, zeros=args.zeros is None)
    return Subject(model=model, artifact=found, ternary=ternary_counts(model, found.layers))


def make_system(args: "argparse.Namespace", subject: Subject) -> System:
    """Return the array that the options shape, with what is beside it."""
    from tern_hw.shape import shaped_config

    if (artifact := subject.artifact) is None:
        config = shaped_config(args)
    else:
        packing = Packing(artifact.packing)
        own = {"group_size": artifact.group_size, "packing": packing}
        config = shaped_config(args, otherwise=own)
        if config.group_size != artifact.group_size:
            raise TernError(
                f"group_size must be the artifact's, {artifact.group_size}, not {config.group_size}"
            )
    return System(engine=config, clock_mhz=args.clock, float_macs=args.float_macs)


def make_inputs(args: "argparse.Namespace", subject: Subject) -> Inputs:
    """Return the coefficients: the tables', the artifact's and the command line's over them."""
    inputs = _inputs(args)
    if subject.artifact is None or subject.artifact.zero_fraction is None:
        return inputs
    source = f"counted in the artifact {args.model}"
    return inputs.replaced("data.zero_fraction", subject.artifact.zero_fraction, source)


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
