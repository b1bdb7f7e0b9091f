"""The options that shape an array, shared by the verbs that make one."""

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from tern_hw.cli import integer, parse_group_size
from tern_hw.config import (
    NAMED_CONFIGS,
    Activation,
    ArrayConfig,
    Dot,
    OutputFormat,
    Packing,
    Weights,
)
from tern_hw.errors import TernError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

__all__ = ["SHAPE", "add_shape_options", "shaped_config"]

#: Names in the parsed arguments of all options that shape an array.
SHAPE: Final = (
    "config",
    "lanes",
    "rows",
    "activation",
    "aligned",
    "weights",
    "packing",
    "group_size",
    "result",
    "max_k",
    "max_n",
    "dot",
    "products",
)


def add_shape_options(parser: "argparse.ArgumentParser") -> None:
    """Add a group with an option for each public field of `ArrayConfig`, and --config."""
    default = ArrayConfig()
    shape = parser.add_argument_group("the array")
    shape.add_argument("--config", metavar="NAME", help="start from a named configuration (--list)")
    shape.add_argument("--lanes", type=integer, help=f"inputs a cycle, 8 to 1024 ({default.lanes})")
    shape.add_argument(
        "--rows", type=integer, help=f"outputs in parallel, 1 to 16 ({default.rows})"
    )
    shape.add_argument("--activation", help=f"{' or '.join(Activation)} ({default.activation})")
    shape.add_argument(
        "--aligned",
        metavar="W",
        type=integer,
        help="bits of fp16 activations when aligned within their group, 8 to 40 (all: exact)",
    )
    shape.add_argument("--weights", help=f"{' or '.join(Weights)} ({default.weights})")
    shape.add_argument("--packing", help=f"{' or '.join(Packing)} ({default.packing})")
    shape.add_argument(
        "--group-size",
        metavar="G",
        help='inputs per scale and shift: "row", a multiple of lanes or a divisor of lanes '
        f"({default.group_size})",
    )
    shape.add_argument("--result", help=f"{' or '.join(OutputFormat)} ({default.output})")
    shape.add_argument("--max-k", type=integer, help=f"largest K, inputs ({default.max_k})")
    shape.add_argument("--max-n", type=integer, help=f"largest N, outputs ({default.max_n})")
    shape.add_argument(
        "--dot",
        help=f"dot product: {' or '.join(Dot)} ({default.dot}); carry is made of ECP5's cells",
    )
    shape.add_argument(
        "--products",
        type=integer,
        help="products of scale and shift that a row computes at once: 2, or 1 in turn, where "
        f"groups are larger than the lanes ({default.products})",
    )


def shaped_config(
    args: "argparse.Namespace", otherwise: "Mapping[str, Any] | None" = None
) -> ArrayConfig:
    """Return the configuration that the options ask for: the named one's, with changes.

    Parameters
    ----------
    args : Namespace
    otherwise : mapping, optional
        Fields that neither an option nor a named configuration tells.

    Raises
    ------
    TernError
        If there is no configuration of that name, or the fields do not go together.
    """
    base = ArrayConfig()
    if args.config is not None:
        if args.config not in NAMED_CONFIGS:
            names = ", ".join(NAMED_CONFIGS)
            raise TernError(f"--config must be one of {names}, not {args.config!r}")
        base = NAMED_CONFIGS[args.config]
    if args.result is not None and args.result not in list(OutputFormat):
        raise TernError(f"--result must be one of {', '.join(OutputFormat)}, not {args.result!r}")
    given: dict[str, Any] = {
        "lanes": args.lanes,
        "rows": args.rows,
        "activation": args.activation,
        "aligned": args.aligned,
        "weights": args.weights,
        "packing": args.packing,
        "group_size": None if args.group_size is None else parse_group_size(args.group_size),
        "output": args.result,
        "max_k": args.max_k,
        "max_n": args.max_n,
        "dot": args.dot,
        "products": args.products,
    }
    told = {k: v for k, v in given.items() if v is not None}
    if args.config is None:
        told = {**(otherwise or {}), **told}
    return dataclasses.replace(base, **told)
