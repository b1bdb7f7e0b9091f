"""The compiled harness: jobs in as bytes, one record per event out (see harness.cpp)."""

import math
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tern_hw.config import ArrayConfig, ErrorFlag, Register
from tern_hw.errors import TernError
from tern_hw.flows.cells import models_of
from tern_hw.flows.process import ToolError
from tern_hw.flows.verilator import build_model
from tern_hw.flows.wrapper import WRAPPER, wrapper_verilog

__all__ = [
    "STALLS",
    "Event",
    "Finished",
    "HangError",
    "Jobs",
    "Period",
    "build_harness",
    "run_jobs",
]

SOURCE = Path(__file__).with_name("harness.cpp")
#: Class name of the model that harness.cpp includes.
PREFIX = "Varray"
#: First word of a job file.
MAGIC = int.from_bytes(b"TERNJOB1", "little")
#: Probabilities travel as integers in this unit.
PROBABILITY_UNIT = 2**32
#: Cycles between two progress records.
HEARTBEAT_CYCLES = 1 << 18
RESET_CYCLES = 4
#: A job may take this many times the cycles it needs on average, plus a constant.
LIMIT_FACTOR, LIMIT_CYCLES = 8, 20_000
#: STATUS bits: busy and done; a job is over when only done is set.
STATUS_MASK, STATUS_DONE = 3, 2
#: Stall counters by stream.
STALLS = {
    "activation": Register.ACTIVATION_STALLS,
    "weight": Register.WEIGHT_STALLS,
    "scale": Register.SCALE_STALLS,
    "result": Register.RESULT_STALLS,
}
#: What is read after each job, in this order.
READS = (Register.CYCLES, *STALLS.values(), Register.ERRORS)


class HangError(RuntimeError):
    """The array did not finish a job within its cycle limit: a defect of the gateware."""


@dataclass(frozen=True)
class Period:
    """How a stream pauses: `pause` cycles after every `beats` transfers of a job."""

    beats: int = 1
    pause: int = 0

    def __post_init__(self) -> None:
        if self.beats < 1 or self.pause < 0:
            raise TernError(
                f"period must be of at least 1 beat and 0 cycles, not {self.beats} and {self.pause}"
            )


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """Jobs that share one matrix: the beats of their streams, and how the streams stall.

    Each job starts with the sources offering their beats already.
    """

    config: ArrayConfig
    #: Outputs and inputs of each job.
    n: int
    k: int
    #: uint8 [jobs, chunks, activation_beat_bytes]
    activations: NDArray[np.uint8]
    #: uint8 [row_blocks * chunks, weight_beat_bytes]
    weights: NDArray[np.uint8]
    #: uint8 [row_blocks * groups, scale_beat_bytes]
    scales: NDArray[np.uint8]
    #: Probability, each cycle, that a source with nothing on offer stays idle; below 1.
    idle: float = 0.0
    #: Probability, each cycle, that the sink is not ready; below 1.
    backpressure: float = 0.0
    seed: int = 0
    #: Pauses that are no matter of chance, by the name of the stream's stall counter.
    periods: Mapping[str, Period] = field(default_factory=dict)

    @property
    def stalled(self) -> bool:
        """Whether any stream may pause."""
        pauses = (period.pause for period in self.periods.values())
        return bool(self.idle or self.backpressure or any(pauses))

    @property
    def limit_cycles(self) -> int:
        """Cycles after which a job counts as hanging: far beyond what the stalls explain."""
        beats = self.activations.shape[1] + len(self.weights) + len(self.scales)
        stalled = beats / (1 - self.idle) + self.n / (1 - self.backpressure)
        pauses = sum(period.pause for period in self.periods.values())
        stalled += pauses * (beats + self.n)
        return math.ceil(
            LIMIT_FACTOR * (self.config.job_cycles(self.n, self.k) + stalled) + LIMIT_CYCLES
        )

    def file_bytes(self) -> Iterator[bytes]:
        """Yield the job file: header, control accesses, beats."""
        writes = (
            (Register.N, self.n),
            (Register.K, self.k),
            (Register.CONTROL, 1),
        )
        header = [MAGIC, len(self.activations), self.n]
        header += [self.activations.shape[1], len(self.weights), len(self.scales)]
        header += [self.activations.shape[2], self.weights.shape[1], self.scales.shape[1]]
        header += [self.config.result_beat_bytes, self.seed]
        header += [int(p * PROBABILITY_UNIT) for p in (self.idle, self.backpressure)]
        header += [self.limit_cycles, HEARTBEAT_CYCLES, len(writes), len(READS)]
        header += [Register.STATUS, STATUS_MASK, STATUS_DONE, RESET_CYCLES]
        for period in (self.periods.get(name, Period()) for name in STALLS):
            header += [period.beats, period.pause]
        words = [*header, *(word for pair in writes for word in pair), *READS]
        yield struct.pack(f"<{len(words)}Q", *words)
        for beats in (self.activations, self.weights, self.scales):
            yield np.ascontiguousarray(beats).tobytes()


@dataclass(frozen=True)
class Event:
    """What harness.cpp tells: its `struct Event`, field by field."""

    kind: str
    job: int
    cycle: int
    activations: int
    weights: int
    scales: int
    results: int
    #: Cycles of the job by the harness' own count, as Register.CYCLES is defined.
    job_cycles: int
    bad_last: int
    unstable: int
    surplus: int
    nanoseconds: int


EVENT = struct.Struct(f"<{len(fields(Event))}Q")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One finished job: its event, the registers of `READS`, and the results' bytes."""

    event: Event
    registers: dict[Register, int]
    results: bytes

    def complaints(self, jobs: Jobs) -> list[str]:
        """Return what is wrong with the job, results aside: a sentence each."""
        found = []
        job, cycles = f"job {self.event.job}", self.registers[Register.CYCLES]
        formula = jobs.config.job_cycles(jobs.n, jobs.k)
        stalled = jobs.stalled
        if cycles < formula or (not stalled and cycles != formula):
            rule = "at least" if stalled else "exactly"
            found.append(f"{job} must take {rule} {formula} cycles, not {cycles}")
        if cycles != self.event.job_cycles:
            found.append(f"CYCLES of {job} must be {self.event.job_cycles}, not {cycles}")
        if not stalled and any(self.registers[register] for register in STALLS.values()):
            found.append(f"the stall counters of {job} must be 0 where nothing stalls")
        for count, rule in (
            (self.event.bad_last, "must have TLAST on the last alone"),
            (self.event.unstable, "must not change while they wait"),
            (self.event.surplus, f"must be {jobs.n}, not more"),
        ):
            if count:
                found.append(f"the results of {job} {rule} ({count} times)")
        if errors := ErrorFlag(self.registers[Register.ERRORS]):
            found.append(f"ERRORS after {job} must be 0, not {errors!r}")
        return found


def build_harness(verilog: Path, config: ArrayConfig) -> Path:
    """Compile the harness with an emitted array, or take it from the store.

    Raises
    ------
    TernError
        If Verilator or the C++ compiler is not installed, or refuses the design.
    """
    return build_model(
        verilog,
        top=WRAPPER,
        prefix=PREFIX,
        main=SOURCE,
        wrapper=wrapper_verilog(config),
        models=models_of(config),
    )


def run_jobs(binary: Path, jobs: Jobs) -> Iterator[Event | Finished]:
    """Run the jobs, yielding an `Event` for progress ("P") and the end ("E"), `Finished` per job.

    Raises
    ------
    HangError
        If a job does not end within its limit; the message names the cycle and the state.
    ToolError
        If the process itself fails.
    """
    with tempfile.TemporaryDirectory(prefix="tern-") as folder:
        path = Path(folder) / "jobs.bin"
        with path.open("wb") as file:
            file.writelines(jobs.file_bytes())
        with _process([binary, path]) as output:
            yield from _records(output, jobs)


@contextmanager
def _process(command: list[Path]) -> Iterator[IO[bytes]]:
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout
        except _TruncatedError:
            process.kill()
            text = process.stderr.read().decode(errors="replace").strip()
            raise ToolError(f"the compiled array must run to its end: {text}") from None
        finally:
            process.kill()


class _TruncatedError(Exception):
    """The process' output ended within a record."""


def _take(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise _TruncatedError
    return data


def _records(stream: IO[bytes], jobs: Jobs) -> Iterator[Event | Finished]:
    while True:
        kind, *numbers = EVENT.unpack(_take(stream, EVENT.size))
        event = Event(chr(kind), *numbers)
        if event.kind == "H":
            raise HangError(_hang_sentence(event, jobs))
        if event.kind == "J":
            yield _finished(event, stream, jobs)
        else:
            yield event
        if event.kind == "E":
            return


def _finished(event: Event, stream: IO[bytes], jobs: Jobs) -> Finished:
    values = struct.unpack(f"<{len(READS)}Q", _take(stream, 8 * len(READS)))
    results = _take(stream, jobs.n * jobs.config.result_beat_bytes)
    return Finished(event=event, registers=dict(zip(READS, values, strict=True)), results=results)


def _hang_sentence(event: Event, jobs: Jobs) -> str:
    progress: list[tuple[str, int, Any]] = [
        ("activation beats", event.activations, jobs.activations.shape[1]),
        ("weight beats", event.weights, len(jobs.weights)),
        ("scale beats", event.scales, len(jobs.scales)),
        ("results", event.results, jobs.n),
    ]
    state = ", ".join(f"{done} of {total} {name}" for name, done, total in progress)
    return (
        f"job {event.job} must end within {jobs.limit_cycles} cycles, and had not at cycle "
        f"{event.cycle}: {state} transferred"
    )
