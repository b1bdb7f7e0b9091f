"""Which input moves an answer most, and between which ends it lies."""

from collections.abc import Callable
from dataclasses import dataclass

from tern_hw.costs.technology import End, Inputs, Values

__all__ = ["Bracket", "Swing", "bracket", "tornado"]


@dataclass(frozen=True)
class Swing:
    """An answer with one coefficient at its low and at its high end, all others at their value."""

    key: str
    low: float
    high: float

    @property
    def width(self) -> float:
        """How far the coefficient moves the answer."""
        return abs(self.high - self.low)


@dataclass(frozen=True)
class Bracket:
    """An answer, and what it is when every coefficient stands at the end that lowers or raises it.

    The ends are extremes, no confidence interval: coefficients seldom all err the same way.
    """

    low: float
    mid: float
    high: float


def tornado(inputs: Inputs, answer: Callable[[Values], float]) -> list[Swing]:
    """Return every coefficient that moves an answer, the one that moves it most first."""
    swings = [
        Swing(
            key,
            answer(inputs.values("low", only=key)),
            answer(inputs.values("high", only=key)),
        )
        for key in inputs.coefficients
    ]
    moving = [swing for swing in swings if swing.width > 0]
    return sorted(moving, key=lambda swing: -swing.width)


def bracket(
    inputs: Inputs, answer: Callable[[Values], float], swings: list[Swing] | None = None
) -> Bracket:
    """Return an answer with its extremes.

    Parameters
    ----------
    inputs : Inputs
    answer : callable
        Rises or falls with each coefficient, whatever the others are.
    swings : list of Swing, optional
        Of `tornado` on the same answer.
    """
    found = tornado(inputs, answer) if swings is None else swings
    falling = {swing.key for swing in found if swing.high < swing.low}
    ends: tuple[End, End] = ("low", "high")
    low = {key: ends[key in falling] for key in inputs.coefficients}
    high = {key: ends[key not in falling] for key in inputs.coefficients}
    return Bracket(answer(inputs.mixed(low)), answer(inputs.values()), answer(inputs.mixed(high)))
