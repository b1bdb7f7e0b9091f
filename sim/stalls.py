"""Who stalls in a run, and when: seeded patterns for sources and sink."""

import enum
import random
from collections.abc import Iterator

__all__ = ["StallMode", "pause_pattern"]


class StallMode(enum.StrEnum):
    """Which sides of the streams stall."""

    NONE = "none"
    IDLE = "idle"
    BACKPRESSURE = "backpressure"
    BOTH = "both"

    @property
    def sources_idle(self) -> bool:
        return self in (StallMode.IDLE, StallMode.BOTH)

    @property
    def sink_backpressure(self) -> bool:
        return self in (StallMode.BACKPRESSURE, StallMode.BOTH)


#: Longest run of equal values (cycles); now and then one is long enough to drain every buffer.
SHORT_RUN, LONG_RUN = 3, 60
LONG_RUN_PROBABILITY = 0.04


def pause_pattern(seed: int) -> Iterator[bool]:
    """Yield, for each cycle without end, whether the stream pauses.

    Runs of random lengths, so that single bubbles, bursts and droughts all occur.
    """
    draw = random.Random(seed)
    pause = bool(draw.getrandbits(1))
    while True:
        longest = LONG_RUN if draw.random() < LONG_RUN_PROBABILITY else SHORT_RUN
        for _ in range(draw.randint(1, longest)):
            yield pause
        pause = not pause
