"""`python -m tern_hw.simulate`: a layer of an artifact through the emitted Verilog."""

import contextlib
import dataclasses
import difflib
import io
import json
import sys
import zipfile
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tern_hw.cli import ArgumentParser, integer, progress, run
from tern_hw.config import NAMED_CONFIGS, Activation, ArrayConfig
from tern_hw.errors import TernError
from tern_hw.files import write_atomic
from tern_hw.simulation import MAX_STALL, MAX_TOKENS, SimulationResult, simulate_layer

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

    from tern_hw.artifact import Artifact
    from tern_hw.matrix import TernaryMatrix

__all__ = ["SimulationResult", "main", "simulate_layer"]

EPILOG = """examples:
  python -m tern_hw.simulate model/ model.layers.0.mlp.up_proj
  python -m tern_hw.simulate model/ model.layers.0.mlp.up_proj --activations x.npy --lanes 32
  python -m tern_hw.simulate model/ model.layers.0.mlp.up_proj --idle 0.3 --backpressure 0.5

Exit status: 0 if every bit and every cycle is as it should be, 1 if not, 2 for a mistake in the
command. Compiled arrays are kept in $TERN_HW_CACHE (~/.cache/tern-hw), found by their content.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns its exit status: 1 if the Verilog is wrong."""
    args = _parser().parse_args(argv)
    from tern_hw.artifact import load_artifact
    from tern_hw.flows.harness import HangError

    matrix = _layer(load_artifact(args.artifact), args.layer)
    given = None if args.activations is None else _read_activations(args.activations)
    config = _config(args, matrix, given)
    activations = _activations(args, matrix, config, given)
    total = len(activations) * matrix.out_features
    stalls = {name: getattr(args, name) for name in ("idle", "backpressure", "seed")}
    try:
        with contextlib.ExitStack() as stack:
            # The bar appears with the first call, when nothing will be refused any more.
            bar = lru_cache(
                lambda: stack.enter_context(progress(f"simulating {config.name}", total))
            )
            result = simulate_layer(
                matrix, activations, config, **stalls, progress=lambda count: bar()(count)
            )
    except HangError as hang:
        print(f"error: {hang}", file=sys.stderr)
        return 1
    if args.save is not None:
        _save(args.save, result.outputs)
    facts = _facts(result, matrix)
    print(json.dumps(facts, indent=2) if args.json else _table(facts))
    return 1 if result.complaints else 0


def _parser() -> ArgumentParser:
    import argparse

    default = ArrayConfig()
    parser = ArgumentParser(
        prog="python -m tern_hw.simulate",
        description="Run a layer of an artifact through the emitted Verilog, which Verilator "
        "compiles, and compare every result with the reference, bit for bit.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("artifact", metavar="ARTIFACT", help="a folder that quant.export wrote")
    parser.add_argument("layer", metavar="LAYER", help="name of one of its layers")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.add_argument("--save", metavar="FILE.npy", help="write the array's results, [M, N]")
    what = parser.add_argument_group("the activations")
    source = what.add_mutually_exclusive_group()
    source.add_argument("--activations", metavar="FILE.npy", help="int8 or float16, [M, K] or [K]")
    source.add_argument("--random", metavar="SEED", type=integer, default=0, help="random ones (0)")
    what.add_argument("--tokens", metavar="M", type=integer, help="jobs: the first M rows (all; 1)")
    array = parser.add_argument_group("the array; without --config, groups are the layer's")
    array.add_argument("--config", metavar="NAME", help=f"one of {', '.join(NAMED_CONFIGS)}")
    for name, kind, text in (
        ("--lanes", integer, f"inputs a cycle ({default.lanes})"),
        ("--rows", integer, f"outputs in parallel ({default.rows})"),
        ("--activation", str, "int8 or fp16 (as the file's; int8)"),
        ("--packing", str, "2bit or base3 (as the layer's)"),
        ("--result", str, f"fp32 or fp16 ({default.output})"),
        ("--max-k", integer, f"largest K ({default.max_k})"),
        ("--max-n", integer, f"largest N ({default.max_n})"),
    ):
        array.add_argument(name, type=kind, help=text)
    stalls = parser.add_argument_group(f"stalls: probability each cycle, 0 to {MAX_STALL}")
    stalls.add_argument("--idle", metavar="P", type=float, default=0.0, help="of a source (0)")
    stalls.add_argument("--backpressure", metavar="P", type=float, default=0.0, help="of the sink")
    stalls.add_argument("--seed", type=integer, default=0, help="of all stalls (0)")
    return parser


def _layer(artifact: "Artifact", name: str) -> "TernaryMatrix":
    if name in artifact.layers:
        return artifact.layer(name)
    close = difflib.get_close_matches(name, artifact.layers, n=3, cutoff=0.3)
    names = ", ".join(close or artifact.layers[:3]) or "none"
    raise TernError(f"layer must be one of {artifact.path}'s (such as {names}), not {name!r}")


def _read_activations(path: str) -> "NDArray[Any]":
    """Return a file's array, a single token as [1, K]; `simulate_layer` checks the rest."""
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise TernError(f"--activations must be an existing file, not {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0]
        raise TernError(
            f"--activations must be a .npy file of numbers, not {path} ({reason})"
        ) from None
    if not isinstance(array, np.ndarray):
        raise TernError(f"--activations must be a .npy file of one array, not {path}")
    return np.atleast_2d(array)


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
    names = ("lanes", "rows", "activation", "packing", "max_k", "max_n")
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


def _activations(
    args: "argparse.Namespace",
    matrix: "TernaryMatrix",
    config: ArrayConfig,
    given: "NDArray[Any] | None",
) -> "NDArray[Any]":
    import numpy as np

    most = MAX_TOKENS if given is None else len(given)
    tokens = args.tokens
    if tokens is None:
        tokens = 1 if given is None else most
    elif not 1 <= tokens <= most:
        raise TernError(f"--tokens must be from 1 to {most}, not {tokens}")
    if given is not None:
        return given[:tokens]
    if args.random < 0:
        raise TernError(f"--random must be at least 0, not {args.random}")
    rng = np.random.default_rng(args.random)
    shape = (tokens, matrix.in_features)
    if config.activation is Activation.INT8:
        return rng.integers(-128, 128, shape).astype(np.int8)
    return rng.normal(0, 1, shape).astype(np.float16)


def _facts(result: SimulationResult, matrix: "TernaryMatrix") -> dict[str, Any]:
    n, k = matrix.shape
    tokens = len(result.cycles)
    return {
        "array": result.config.name,
        "layer": matrix.name,
        "outputs": n,
        "inputs": k,
        "tokens": tokens,
        "cycles": list(result.cycles),
        "expected_cycles": result.expected_cycles,
        "weights_per_cycle": round(tokens * n * k / sum(result.cycles), 3),
        "stalls": {name: sum(counts) for name, counts in result.stalls.items()},
        "results": tokens * n,
        "mismatches": result.mismatches,
        "complaints": list(result.complaints),
        "simulated_cycles": result.simulated_cycles,
        "cycles_per_second": round(result.cycles_per_second),
        "build_seconds": round(result.build_seconds, 2),
    }


def _table(facts: dict[str, Any]) -> str:
    low, high = min(facts["cycles"]), max(facts["cycles"])
    lines = {
        "array": facts["array"],
        "layer": f"{facts['layer']}: {facts['outputs']} outputs x {facts['inputs']} inputs",
        "tokens": facts["tokens"],
        "cycles": f"{low if low == high else f'{low} to {high}'} a token",
        "formula": f"{facts['expected_cycles']} a token without stalls",
        "weights": f"{facts['weights_per_cycle']:.1f} a cycle",
        "stalls": ", ".join(f"{name} {count}" for name, count in facts["stalls"].items()),
        "results": f"{facts['results']}, mismatches: {facts['mismatches']}",
        "speed": f"{facts['cycles_per_second']:,} cycles/s ({facts['build_seconds']} s to build)",
    }
    rows = [f"{name:<9}{text}" for name, text in lines.items()]
    return "\n".join([*rows, *(f"WRONG    {sentence}" for sentence in facts["complaints"])])


if __name__ == "__main__":
    raise SystemExit(run(main))
