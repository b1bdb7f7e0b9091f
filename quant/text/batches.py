"""Which tokens a step sees: a function of seed and step alone, so a resumed run sees the same."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tern_hw.errors import TernError

__all__ = ["CALIBRATION_WINDOWS", "Batches", "spread_windows"]

#: Windows that a calibrated method sees, where nothing else is said.
CALIBRATION_WINDOWS: Final = 200


@dataclass(frozen=True)
class Batches:
    """Windows of a text in a random order, each once before any comes again.

    Raises
    ------
    TernError
        If the text is shorter than two windows.
    """

    #: int64 [T].
    tokens: Tensor
    #: Tokens of a window.
    window: int
    #: Windows a step, over all processes.
    batch: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.tokens) < 2 * self.window:
            raise TernError(
                f"training text must have at least {2 * self.window} tokens (two windows), "
                f"not {len(self.tokens)}"
            )

    @property
    def windows(self) -> int:
        """Windows of one pass over the text."""
        return len(self.tokens) // self.window - 1

    def at(self, step: int) -> Tensor:
        """Return a step's windows, int64 [batch, window].

        A pass cuts the text anew, from a random first token, so no token stays at a window's edge.
        """
        first = step * self.batch
        starts = [self._start(position) for position in range(first, first + self.batch)]
        return torch.stack([self.tokens[start : start + self.window] for start in starts])

    def _start(self, position: int) -> int:
        """Return where the window at a position of the endless sequence of windows begins."""
        turn, place = divmod(position, self.windows)
        random = np.random.default_rng((self.seed, turn))
        phase = int(random.integers(self.window))
        return phase + self.window * int(random.permutation(self.windows)[place])


def spread_windows(tokens: Tensor, window: int, count: int, seed: int) -> Tensor:
    """Return windows from all over a text, int64 [count, window]: its first would be of one kind.

    Raises
    ------
    TernError
        If the text is shorter than two windows.
    """
    return Batches(tokens, window, count, seed).at(0)
