"""`python -m tern_hw.simulate`: a whole layer through the emitted Verilog at compiled speed."""

import contextlib
import dataclasses
import difflib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tern_hw.cli import ArgumentParser, progress, run
from tern_hw.config import NAMED_CONFIGS, Activation, ArrayConfig
from tern_hw.errors import TernError

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

    from tern_hw.artifact import Artifact
    from tern_hw.flows.harness import Jobs
    from tern_hw.matrix import TernaryMatrix

__all__ = ["SimulationResult", "main", "simulate_layer"]

#: Most tokens of one run, and the largest seed.
MAX_TOKENS, MAX_SEED = 1 << 20, (1 << 32) - 1

EPILOG = """examples:
  python -m tern_hw.simulate model/ model.layers.0.mlp.up_proj
  python -m tern_hw.simulate model/ model.layers.0.mlp.up_proj --activations x.npy --lanes 32
  python -m tern_hw.simulate model/ model.layers.0.mlp.up_proj --idle 0.3 --backpressure 0.5

Exit status: 0 if every bit and every cycle is as it should be, 1 if not, 2 for a mistake in the
command. Compiled arrays are kept in $TERN_HW_CACHE (~/.cache/tern-hw), found by their content.
"""


@dataclass(frozen=True, kw_only=True)
class SimulationResult:
    """What the emitted Verilog computed, how long it took, and what was wrong with it."""

    config: ArrayConfig
    #: float32 or float16 [M, N]: the array's results.
    outputs: "NDArray[Any]"
    #: Results whose bits differ from the reference's.
    mismatches: int
    #: CYCLES of each job; a job is a token.
    cycles: tuple[int, ...]
    #: What `ArrayConfig.job_cycles` says of a job without stalls.
    expected_cycles: int
    #: Stall cycles of each job, by stream: activation, weight, scale, result.
    stalls: dict[str, tuple[int, ...]]
    #: Everything that is not as it should be (results, errors, cycles, TLAST), a sentence each.
    complaints: tuple[str, ...]
    #: Clock cycles simulated, register accesses included, and how many of them a second.
    simulated_cycles: int
    cycles_per_second: float
    #: Seconds to emit and compile, or to find the compiled array in the store.
    build_seconds: float


def simulate_layer(
    matrix: "TernaryMatrix",
    activations: "NDArray[Any]",
    config: ArrayConfig,
    *,
    idle: float = 0.0,
    backpressure: float = 0.0,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> SimulationResult:
    """Run a layer through the emitted Verilog, one job a token, and compare with the reference.

    Parameters
    ----------
    matrix : TernaryMatrix [N, K]
    activations : int8 or float16 [M, K]
    config : ArrayConfig
        The array to emit; must fit the matrix and the activations.
    idle, backpressure : float
        Probability, each cycle, that a source stays idle and that the sink is not ready; from 0,
        below 1.
    seed : int
        Of the stalls.
    progress : callable, optional
        Called with the number of results that have come since the last call; with 0 once the
        operands are accepted.

    Raises
    ------
    TernError
        If an operand does not fit the array, is not finite, or a tool is not installed.
    HangError
        If the array does not finish a job within a limit far beyond the formula.
    """
    from tern_hw import reference

    jobs = _jobs(matrix, activations, config, idle=idle, backpressure=backpressure, seed=seed)
    expected = reference.matmul(activations, matrix, output=config.output)
    tell = progress or (lambda count: None)
    tell(0)
    begun = time.monotonic()
    binary = _build(config)
    return _run(binary, jobs, expected, time.monotonic() - begun, tell)


@lru_cache(maxsize=32)
def _build(config: ArrayConfig) -> Path:
    """Emit and compile an array, once in a process."""
    from tern_hw.flows.harness import build_harness
    from tern_hw.generate import emit

    with tempfile.TemporaryDirectory(prefix="tern-") as folder:
        verilog = Path(folder) / f"{config.name}.v"
        verilog.write_text(emit(config).verilog)
        return build_harness(verilog, config)


def _run(
    binary: Path,
    jobs: "Jobs",
    expected: "NDArray[Any]",
    build_seconds: float,
    progress: Callable[[int], None],
) -> SimulationResult:
    import numpy as np

    from tern_hw import beats
    from tern_hw.config import Register
    from tern_hw.flows.harness import STALLS, Finished, run_jobs

    finished: list[Finished] = []
    told = 0
    for record in run_jobs(binary, jobs):
        event = record.event if isinstance(record, Finished) else record
        if isinstance(record, Finished):
            finished.append(record)
        if event.kind != "E":
            done = event.job * jobs.n + event.results
            progress(done - told)
            told = done
    outputs = np.stack([beats.results_from_bytes(job.results, jobs.config) for job in finished])
    mismatches, complaints = _compare(outputs, expected)
    for job in finished:
        complaints += job.complaints(jobs)
    return SimulationResult(
        config=jobs.config,
        outputs=outputs,
        mismatches=mismatches,
        cycles=tuple(job.registers[Register.CYCLES] for job in finished),
        expected_cycles=jobs.config.job_cycles(jobs.n, jobs.k),
        stalls={
            name: tuple(job.registers[register] for job in finished)
            for name, register in STALLS.items()
        },
        complaints=tuple(complaints),
        simulated_cycles=event.cycle,
        cycles_per_second=1e9 * event.cycle / event.nanoseconds,
        build_seconds=build_seconds,
    )


def _compare(outputs: "NDArray[Any]", expected: "NDArray[Any]") -> tuple[int, list[str]]:
    """Return how many results differ in their bits, and a sentence on the first."""
    import numpy as np

    bits = f"u{expected.itemsize}"
    wrong = np.argwhere(outputs.view(bits) != expected.view(bits))
    if not len(wrong):
        return 0, []
    token, row = wrong[0]
    got, want = outputs[token, row], expected[token, row]
    return len(wrong), [f"result {row} of token {token} must be {want!r}, not {got!r}"]


def _jobs(
    matrix: "TernaryMatrix",
    activations: "NDArray[Any]",
    config: ArrayConfig,
    *,
    idle: float,
    backpressure: float,
    seed: int,
) -> "Jobs":
    import numpy as np

    from tern_hw import beats
    from tern_hw.flows.harness import Jobs

    for name, value in (("idle", idle), ("backpressure", backpressure)):
        if not 0 <= value < 1:
            raise TernError(f"{name} must be a probability from 0, below 1, not {value}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise TernError(f"seed must be an integer from 0 to {MAX_SEED}, not {seed!r}")
    wanted = np.dtype(np.int8 if config.activation is Activation.INT8 else np.float16)
    n, k = matrix.shape
    dtype = getattr(activations, "dtype", None)
    shape: tuple[int, ...] = getattr(activations, "shape", ())
    if dtype != wanted or len(shape) != 2 or shape[1] != k or not 1 <= shape[0] <= MAX_TOKENS:
        raise TernError(f"activations must be {wanted} of shape [M, {k}], not {dtype} {[*shape]}")
    return Jobs(
        config=config,
        n=n,
        k=k,
        weights=beats.weight_beats(matrix, config),
        scales=beats.scale_beats(matrix, config),
        activations=np.stack([beats.activation_beats(token, config) for token in activations]),
        idle=idle,
        backpressure=backpressure,
        seed=seed,
    )


# ------------------------------------------------------------------- command line


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns its exit status: 1 if the Verilog is wrong."""
    args = _parser().parse_args(argv)
    from tern_hw.artifact import load_artifact
    from tern_hw.flows.harness import HangError

    matrix = _layer(load_artifact(args.artifact, verify=False), args.layer)
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
    what = parser.add_argument_group("the activations")
    source = what.add_mutually_exclusive_group()
    source.add_argument("--activations", metavar="FILE.npy", help="int8 or float16, [M, K] or [K]")
    source.add_argument("--random", metavar="SEED", type=int, default=0, help="random ones (0)")
    what.add_argument("--tokens", metavar="M", type=int, help="jobs: the first M rows (all; 1)")
    array = parser.add_argument_group("the array; without --config, groups are the layer's")
    array.add_argument("--config", metavar="NAME", help=f"one of {', '.join(NAMED_CONFIGS)}")
    for name, kind, text in (
        ("--lanes", int, f"inputs a cycle ({default.lanes})"),
        ("--rows", int, f"outputs in parallel ({default.rows})"),
        ("--activation", str, "int8 or fp16 (as the file's; int8)"),
        ("--packing", str, f"2bit or base3 ({default.packing})"),
        ("--result", str, f"fp32 or fp16 ({default.output})"),
        ("--max-k", int, f"largest K ({default.max_k})"),
        ("--max-n", int, f"largest N ({default.max_n})"),
    ):
        array.add_argument(name, type=kind, help=text)
    stalls = parser.add_argument_group("stalls: probability each cycle, from 0, below 1")
    stalls.add_argument("--idle", metavar="P", type=float, default=0.0, help="of a source (0)")
    stalls.add_argument("--backpressure", metavar="P", type=float, default=0.0, help="of the sink")
    stalls.add_argument("--seed", type=int, default=0, help="of all stalls (0)")
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
    except (OSError, ValueError, EOFError) as error:
        raise TernError(f"--activations must be a .npy file of numbers, not {path}") from error
    if not isinstance(array, np.ndarray):
        raise TernError(f"--activations must be a .npy file of one array, not {path}")
    return np.atleast_2d(array)


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
