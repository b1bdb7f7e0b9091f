"""`python -m tern_hw.simulate`: layers of an artifact through the emitted Verilog."""

import contextlib
import dataclasses
import difflib
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tern_hw.cli import ArgumentParser, integer, progress, run
from tern_hw.config import NAMED_CONFIGS, Activation, ArrayConfig, Dot
from tern_hw.errors import TernError
from tern_hw.files import write_atomic
from tern_hw.simulation import (
    MAX_STALL,
    MAX_TOKENS,
    SimulationResult,
    check_activations,
    simulate_layer,
)

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

    from tern_hw.activations import ActivationFile
    from tern_hw.artifact import Artifact
    from tern_hw.matrix import TernaryMatrix

__all__ = ["SimulationResult", "main", "simulate_layer"]

EPILOG = """examples:
  python -m tern_hw.simulate model/ model.layers.0.mlp.up_proj
  python -m tern_hw.simulate model/ model.layers.0.mlp.up_proj --activations x.npy --lanes 32
  python -m tern_hw.simulate model/ model.layers.0.mlp.up_proj --idle 0.3 --backpressure 0.5
  python -m tern_hw.simulate model/ '*' --activations x.safetensors

The last takes every layer in turn; python -m quant.capture writes such a file of what enters each.
Its tensors have the layers' names and are int8, float16, or float32 [M, K]; float32 is quantised
for an int8 array, each token by a scale of its own, and rounded for an fp16 one.

Exit status: 0 if every bit and every cycle is as it should be, 1 if not, 2 for a mistake in the
command. Compiled arrays are kept in $TERN_HW_CACHE (~/.cache/tern-hw), found by their content.
"""


class _Operands(NamedTuple):
    """What is simulated."""

    matrix: "TernaryMatrix"
    activations: "NDArray[Any]"
    config: ArrayConfig


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns its exit status: 1 if the Verilog is wrong."""
    args = _parser().parse_args(argv)
    from tern_hw.activations import open_activations
    from tern_hw.artifact import load_artifact
    from tern_hw.flows.harness import HangError

    artifact = load_artifact(args.artifact)
    names = _layers(artifact, args.layer)
    several = args.layer not in artifact.layers
    if several and args.save is not None:
        raise TernError(f"--save must be given with the name of one layer, not with {args.layer!r}")
    given = None if args.activations is None else open_activations(args.activations)
    operands = [_operands(args, artifact.layer(name), given) for name in names]
    try:
        return _run_all(args, operands) if several else _run_one(args, operands[0])
    except HangError as hang:
        print(f"error: {hang}", file=sys.stderr)
        return 1


def _run_one(args: "argparse.Namespace", operands: _Operands) -> int:
    """Simulate a layer and print its facts."""
    from tern_hw.simulation_report import layer_facts, layer_table

    matrix, activations, config = operands
    total = len(activations) * matrix.out_features
    with _late_bar(f"simulating {config.name}", total) as advance:
        result = simulate_layer(*operands, **_stalls(args), progress=advance)
    if args.save is not None:
        _save(args.save, result.outputs)
    facts = layer_facts(result, matrix)
    print(json.dumps(facts, indent=2) if args.json else layer_table(facts))
    return 1 if result.complaints else 0


def _run_all(args: "argparse.Namespace", operands: list[_Operands]) -> int:
    """Simulate layers in turn and print a row for each kind of them."""
    from tern_hw.beats import check_fit
    from tern_hw.flows.harness import HangError
    from tern_hw.simulation_report import layer_facts, layers_facts, print_layers

    start = time.monotonic()
    # All of them before the first is simulated: a mistake in the last would cost the others.
    for matrix, activations, config in operands:
        check_fit(matrix, config)
        try:
            check_activations(activations, matrix.in_features, config)
        except TernError as error:
            raise TernError(f"{matrix.name}: {error}") from None
    facts = []
    with _late_bar("simulating layers", len(operands)) as advance:
        for each in operands:
            try:
                result = simulate_layer(*each, **_stalls(args), progress=lambda count: advance(0))
            except HangError as hang:
                raise HangError(f"{each.matrix.name}: {hang}") from None
            facts.append(layer_facts(result, each.matrix))
            advance(1)
    report = layers_facts(args.artifact, facts, time.monotonic() - start)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print_layers(report)
    return 1 if report["totals"]["complaints"] else 0


@contextlib.contextmanager
def _late_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield what adds to a bar; it appears at the first call, when nothing is refused any more."""
    with contextlib.ExitStack() as stack:
        bar = lru_cache(lambda: stack.enter_context(progress(description, total)))
        yield lambda count: bar()(count)


def _parser() -> ArgumentParser:
    import argparse

    default = ArrayConfig()
    parser = ArgumentParser(
        prog="python -m tern_hw.simulate",
        description="Run layers of an artifact through the emitted Verilog, which Verilator "
        "compiles, and compare every result with the reference, bit for bit.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("artifact", metavar="ARTIFACT", help="a folder that quant.export wrote")
    parser.add_argument(
        "layer", metavar="LAYER", help="name of one of its layers, or a glob of several, as '*'"
    )
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.add_argument("--save", metavar="FILE.npy", help="write the array's results, [M, N]")
    what = parser.add_argument_group("the activations")
    source = what.add_mutually_exclusive_group()
    source.add_argument(
        "--activations",
        metavar="FILE",
        help=".npy: int8 or float16, [M, K] or [K]; .safetensors: a tensor a layer, see below",
    )
    source.add_argument("--random", metavar="SEED", type=integer, default=0, help="random ones (0)")
    what.add_argument("--tokens", metavar="M", type=integer, help="jobs: the first M rows (all; 1)")
    array = parser.add_argument_group("the array; without --config, groups are the layer's")
    array.add_argument("--config", metavar="NAME", help=f"one of {', '.join(NAMED_CONFIGS)}")
    for name, kind, text in (
        ("--lanes", integer, f"inputs a cycle ({default.lanes})"),
        ("--rows", integer, f"outputs in parallel ({default.rows})"),
        ("--activation", str, "int8 or fp16 (as the file's; int8)"),
        ("--aligned", integer, "bits of fp16 activations when aligned within their group (all)"),
        ("--packing", str, "2bit or base3 (as the layer's)"),
        ("--result", str, f"fp32 or fp16 ({default.output})"),
        ("--max-k", integer, f"largest K ({default.max_k})"),
        ("--max-n", integer, f"largest N ({default.max_n})"),
        ("--dot", str, f"{' or '.join(Dot)} ({default.dot})"),
        ("--products", integer, f"of a row's scale and shift at once: 2 or 1 ({default.products})"),
    ):
        array.add_argument(name, type=kind, help=text)
    stalls = parser.add_argument_group(f"stalls: probability each cycle, 0 to {MAX_STALL}")
    stalls.add_argument("--idle", metavar="P", type=float, default=0.0, help="of a source (0)")
    stalls.add_argument("--backpressure", metavar="P", type=float, default=0.0, help="of the sink")
    stalls.add_argument("--seed", type=integer, default=0, help="of all stalls (0)")
    return parser


def _layers(artifact: "Artifact", wanted: str) -> list[str]:
    """Return the layer of that name, or else those that the glob matches."""
    if wanted in artifact.layers:
        return [wanted]
    if names := [name for name in artifact.layers if fnmatchcase(name, wanted)]:
        return names
    close = difflib.get_close_matches(wanted, artifact.layers, n=3, cutoff=0.3)
    some = ", ".join(close or artifact.layers[:3]) or "none"
    raise TernError(f"layer must be one of {artifact.path}'s (such as {some}), not {wanted!r}")


def _stalls(args: "argparse.Namespace") -> dict[str, Any]:
    return {name: getattr(args, name) for name in ("idle", "backpressure", "seed")}


def _save(path: str, outputs: "NDArray[Any]") -> None:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, outputs, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def _config(
    args: "argparse.Namespace", matrix: "TernaryMatrix", given: "NDArray[Any] | None"
) -> ArrayConfig:
    if args.config is not None and args.config not in NAMED_CONFIGS:
        raise TernError(f"--config must be one of {', '.join(NAMED_CONFIGS)}, not {args.config!r}")
    formats = ("activation", "aligned", "packing")
    names = (*formats, "lanes", "rows", "max_k", "max_n", "dot", "products")
    fields = {name: getattr(args, name) for name in names} | {"output": args.result}
    base = ArrayConfig()
    if args.config is not None:
        base = NAMED_CONFIGS[args.config]
    else:
        fields["group_size"] = matrix.group_size
        fields["packing"] = args.packing or matrix.packing
        if args.activation is None and given is not None and given.dtype == "float16":
            fields["activation"] = Activation.FP16
    given_fields = {name: value for name, value in fields.items() if value is not None}
    return dataclasses.replace(base, **given_fields)


def _operands(
    args: "argparse.Namespace", matrix: "TernaryMatrix", source: "ActivationFile | None"
) -> _Operands:
    """Return a layer, its activations, and the array that takes them."""
    from tern_hw.activations import random_activations

    given = None if source is None else source.of(matrix.name, matrix.in_features)
    config = _config(args, matrix, given)
    most = MAX_TOKENS if given is None else len(given)
    if args.tokens is not None and not 1 <= args.tokens <= most:
        raise TernError(f"--tokens must be from 1 to {most}, not {args.tokens}")
    if source is not None and given is not None:
        wanted = source.converted(given[: args.tokens], config.activation, matrix.name)
        return _Operands(matrix, wanted, config)
    if args.random < 0:
        raise TernError(f"--random must be at least 0, not {args.random}")
    shape = (args.tokens or 1, matrix.in_features)
    return _Operands(matrix, random_activations(args.random, *shape, config.activation), config)


if __name__ == "__main__":
    raise SystemExit(run(main))
