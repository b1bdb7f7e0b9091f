"""Interleaved timing: in every round each contender has its turn, so that noise is everyone's."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["Timing", "interleaved"]

#: Calls of a turn that are not timed: a contender first gets its operands back into the caches.
WARMING: Final = 3
#: Seconds that the timed calls of a turn should take together, and the fewest and most of them.
TURN_SECONDS: Final = 0.02
FEWEST, MOST = 3, 50


@dataclass(frozen=True)
class Timing:
    """Seconds of a contender's calls: over the rounds' medians."""

    #: The median of each round, in their order.
    rounds: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """The median of medians."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the distance of the rounds' quartiles, over the median."""
        if len(self.rounds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return (high - low) / 2 / self.seconds

    def times_faster(self, other: "Timing") -> tuple[float, float, float]:
        """Return how many times as fast this one was: median, least and most of the rounds."""
        ratios = [theirs / ours for ours, theirs in zip(self.rounds, other.rounds, strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Timing]:
    """Time each contender in every round, one after the other.

    Parameters
    ----------
    contenders : mapping of name to callable
    rounds : int
    advance : callable
        Told of each turn that is done.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            found[name].append(_turn(call))
            advance(1)
    return {name: Timing(tuple(seconds)) for name, seconds in found.items()}


def _turn(call: Callable[[], object]) -> float:
    """Return the median of a turn's timed calls."""
    first = _timed(call)
    for _ in range(WARMING - 1 if first < TURN_SECONDS else 0):
        first = min(first, _timed(call))
    count = min(MOST, max(FEWEST, round(TURN_SECONDS / first)))
    return statistics.median(_timed(call) for _ in range(count))


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
