"""When a source of the compiled harness pauses: its generator, drawn again in Python."""

from typing import Final

__all__ = ["idle_pauses"]

MASK: Final = (1 << 64) - 1
#: Draws that the harness throws away first.
WARM_UP: Final = 8


class _Random:
    """xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators"), eq. 3.

    The upper 32 bits of each product, as `tern_hw/flows/harness.cpp` seeds and draws it.
    """

    def __init__(self, seed: int) -> None:
        self.state = (seed * 0x9E3779B97F4A7C15 & MASK) | 1
        for _ in range(WARM_UP):
            self.draw()

    def draw(self) -> int:
        state = self.state
        state ^= state >> 12
        state ^= state << 25 & MASK
        state ^= state >> 27
        self.state = state
        return (state * 0x2545F4914F6CDD1D & MASK) >> 32


def idle_pauses(idle: float, seed: int, beats: int) -> tuple[int, ...]:
    """Return the cycles that a source stays idle after each beat of its first packet.

    Parameters
    ----------
    idle : float
        Probability, each cycle, that it stays idle.
    seed : int
        Of the source: four times the job's, plus its place among the streams.
    beats : int
        Of the packet.
    """
    threshold = int(idle * (1 << 32))
    random = _Random(seed)

    def pause() -> int:
        count = 0
        while threshold and random.draw() < threshold:
            count += 1
        return count

    pause()  # before the first beat, while the registers are written
    return (*(pause() for _ in range(beats - 1)), 0)
