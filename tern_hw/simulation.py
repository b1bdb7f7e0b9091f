"""A whole layer through the emitted Verilog at compiled speed, held to the reference."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tern_hw.config import Activation, ArrayConfig
from tern_hw.errors import TernError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tern_hw.flows.harness import Jobs
    from tern_hw.matrix import TernaryMatrix

__all__ = [
    "MAX_STALL",
    "MAX_TOKENS",
    "SimulationResult",
    "check_activations",
    "compiled",
    "jobs_of",
    "simulate_layer",
]

#: Most tokens of one run, and the largest seed.
MAX_TOKENS, MAX_SEED = 1 << 20, (1 << 32) - 1
#: Largest probability of a stall: beyond it a run takes longer than anyone waits.
MAX_STALL = 0.99


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

    jobs = jobs_of(matrix, activations, config, idle=idle, backpressure=backpressure, seed=seed)
    expected = reference.matmul(activations, matrix, output=config.output, aligned=config.aligned)
    tell = progress or (lambda count: None)
    tell(0)
    begun = time.monotonic()
    binary = compiled(config)
    return _run(binary, jobs, expected, time.monotonic() - begun, tell)


def check_activations(activations: "NDArray[Any]", in_features: int, config: ArrayConfig) -> None:
    """Refuse activations that are not of the layer's size and the array's format.

    Raises
    ------
    TernError
        Saying what is wrong. Values are not looked at: `simulate_layer` does that.
    """
    import numpy as np

    wanted = np.dtype(np.int8 if config.activation is Activation.INT8 else np.float16)
    dtype = getattr(activations, "dtype", None)
    shape: tuple[int, ...] = getattr(activations, "shape", ())
    fits = len(shape) == 2 and shape[1] == in_features and 1 <= shape[0] <= MAX_TOKENS
    if dtype != wanted or not fits:
        raise TernError(
            f"activations must be {wanted} (as the array takes them) of shape [M, {in_features}], "
            f"not {dtype} {[*shape]}"
        )


@lru_cache(maxsize=32)
def compiled(config: ArrayConfig) -> Path:
    """Emit and compile an array, once in a process; returns the program."""
    from tern_hw.flows.harness import build_harness
    from tern_hw.gateware.emit import emit

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


def jobs_of(
    matrix: "TernaryMatrix",
    activations: "NDArray[Any]",
    config: ArrayConfig,
    *,
    idle: float,
    backpressure: float,
    seed: int,
) -> "Jobs":
    """Return the beats of a layer's jobs, one a token, and how their streams pause.

    Parameters
    ----------
    matrix : TernaryMatrix [N, K]
    activations : int8 or float16 [M, K]
    config
        The array.
    idle, backpressure
        Probability that a source, and the sink, pauses a cycle.
    seed
        Of the pauses.

    Raises
    ------
    TernError
        If the layer does not fit the array, or a number is out of its range.
    """
    import numpy as np

    from tern_hw import beats
    from tern_hw.flows.harness import Jobs

    for name, value in (("idle", idle), ("backpressure", backpressure)):
        if not 0 <= value <= MAX_STALL:
            raise TernError(f"{name} must be a probability from 0 to {MAX_STALL}, not {value}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise TernError(f"seed must be an integer from 0 to {MAX_SEED}, not {seed!r}")
    n, k = matrix.shape
    check_activations(activations, k, config)
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
