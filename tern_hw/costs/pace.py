"""A job's cycles when its streams are paced: the sequencer's rules, cycle by cycle."""

import itertools
from collections import deque
from dataclasses import dataclass
from typing import Final

from tern_hw.config import ArrayConfig
from tern_hw.costs.counts import check_shape
from tern_hw.errors import TernError

__all__ = ["Pace", "PacedJob", "paced_job"]

#: Longest pause, in cycles.
MAX_PAUSE: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Cycles that each stream pauses after a transfer; 0 is a transfer a cycle.

    A tuple is a pause after each transfer in turn, from its beginning again where it ends. A source
    has its first beat ready when the job starts; a sink is then ready.
    """

    activation: int | tuple[int, ...] = 0
    weight: int | tuple[int, ...] = 0
    scale: int | tuple[int, ...] = 0
    result: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            pauses = value if isinstance(value, tuple) else (value,)
            right = (type(pause) is int and 0 <= pause <= MAX_PAUSE for pause in pauses)
            if not pauses or not all(right):
                raise TernError(
                    f"pace of {name} must be from 0 to {MAX_PAUSE} cycles, not {value!r:.60}"
                )


@dataclass(frozen=True)
class PacedJob:
    """What the array's counters read after a job."""

    #: `Register.CYCLES`.
    cycles: int
    #: The registers of stalls, in their order: activations, weights, scales, results.
    stalls: tuple[int, int, int, int]


class _Stream:
    """When a stream is next ready for a transfer."""

    def __init__(self, pauses: int | tuple[int, ...]) -> None:
        self.pauses = itertools.cycle(pauses if isinstance(pauses, tuple) else (pauses,))
        self.ready_at = 0

    def transfer(self, cycle: int) -> None:
        self.ready_at = cycle + 1 + next(self.pauses)


class _Scales:
    """The scale beats that wait, and their credits: what a step may claim."""

    def __init__(self, stream: _Stream, beats: int, places: int) -> None:
        self.stream = stream
        self.left = beats
        self.places = places
        self.credits = 0
        self.uncounted = 0  # the claim of the cycle before
        self.spare = True  # whether one more may come

    def advance(self, cycle: int, claimed: bool) -> None:
        """Let a cycle pass: a beat in, a claim; room is told in the next one."""
        arrives = self.left > 0 and self.spare and cycle >= self.stream.ready_at
        if arrives:
            self.stream.transfer(cycle)
            self.left -= 1
        self.spare = self.credits + self.uncounted < self.places - 1
        self.uncounted = int(claimed)
        self.credits += arrives - claimed


class _Results:
    """Places for results, and those on their way out."""

    def __init__(self, stream: _Stream, config: ArrayConfig) -> None:
        self.stream = stream
        self.rows = config.rows
        self.latency = config.latency_cycles
        self.places = config.result_places
        self.waiting: deque[int] = deque()  # cycles from which each may be transferred

    def block(self, cycle: int, rows: int) -> None:
        """Take the places of a row block whose last step is now."""
        self.places -= self.rows
        self.waiting.extend(cycle + self.latency + row for row in range(rows))

    def offered(self, cycle: int) -> bool:
        """Tell whether a result is there."""
        return bool(self.waiting) and self.waiting[0] <= cycle

    def advance(self, cycle: int) -> bool:
        """Let a cycle pass; tells whether a result left."""
        leaves = self.offered(cycle) and cycle >= self.stream.ready_at
        if leaves:
            self.waiting.popleft()
            self.stream.transfer(cycle)
            self.places += 1
        return leaves


def paced_job(config: ArrayConfig, n: int, k: int, pace: Pace) -> PacedJob:
    """Return the cycles and stalls of a job whose streams pause after each transfer.

    Parameters
    ----------
    config : ArrayConfig
    n, k : int
    pace : Pace
        With all pauses 0, the cycles are `config.job_cycles(n, k)`.

    Raises
    ------
    TernError
        If the array cannot do such a job.
    """
    check_shape(config, 1, n, k)
    # The start is cycle 0; the counter counts from cycle 1 to the last result's transfer.
    cycle, waited = _load(config, k, _Stream(pace.activation))
    beats = config.row_blocks(n) * config.groups(k)
    scales = _Scales(_Stream(pace.scale), beats, config.scale_places)
    for before in range(1, cycle):  # scales arrive while activations load
        scales.advance(before, claimed=False)
    results = _Results(_Stream(pace.result), config)
    cycle, stalls = _compute(config, n, k, cycle, _Stream(pace.weight), scales, results)
    late = 0
    while results.waiting:
        late += results.offered(cycle) and cycle < results.stream.ready_at
        results.advance(cycle)
        cycle += 1
    return PacedJob(cycle - 1, (waited, stalls[0], stalls[1], stalls[2] + late))


def _load(config: ArrayConfig, k: int, stream: _Stream) -> tuple[int, int]:
    """Return the first cycle that may compute, and the cycles spent waiting for activations."""
    cycle, waited = 1, 0
    for first in range(0, k, config.step_inputs):
        waited += max(0, stream.ready_at - cycle)
        cycle = max(cycle, stream.ready_at)
        if _beat_ends(config, first, k):
            stream.transfer(cycle)
        cycle += 1
    if config.aligned is not None:  # units are found, and every word passes again
        cycle += config.unit_cycles + config.steps(k)
    return cycle + config.load_gap_cycles, waited


def _beat_ends(config: ArrayConfig, first: int, k: int) -> bool:
    """Tell whether the step from input `first` is the last of its beat."""
    last = first + config.step_inputs
    return last >= k or last % config.lanes == 0


def _compute(
    config: ArrayConfig,
    n: int,
    k: int,
    cycle: int,
    weights: _Stream,
    scales: _Scales,
    results: _Results,
) -> tuple[int, list[int]]:
    """Run all steps; return the cycle after the last, and the stalls of weights, scales, room."""
    stalls = [0, 0, 0]
    size = k if config.group_size == "row" else config.group_size
    too_soon, ended = 0, False
    for block in range(0, n, config.rows):
        for first in range(0, k, config.step_inputs):
            last = first + config.step_inputs
            row_last = last >= k
            group_last = row_last or last % size == 0
            fired = False
            while not fired:
                have_weight = cycle >= weights.ready_at
                have_scale = not group_last or scales.credits > 0
                room = results.places >= config.rows
                have_room = not row_last or (room and too_soon == 0)
                have_unit = not group_last or not ended
                fired = have_weight and have_scale and have_room and have_unit
                stalls[0] += not have_weight
                stalls[1] += have_weight and not have_scale
                stalls[2] += have_weight and have_scale and row_last and not room
                too_soon = max(0, too_soon - 1)
                ended = config.products == 1 and fired and group_last
                results.advance(cycle)
                scales.advance(cycle, claimed=fired and group_last)
                if fired and _beat_ends(config, first, k):
                    weights.transfer(cycle)
                if fired and row_last:
                    results.block(cycle, min(config.rows, n - block))
                    too_soon = config.rows - 1
                cycle += 1
    return cycle, stalls
