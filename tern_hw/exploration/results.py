"""Figures that are known: JSON lines, each under its point's key, added as they come."""

import json
import os
from pathlib import Path
from typing import Final

from tern_hw.cache import cache_root
from tern_hw.errors import TernError
from tern_hw.exploration.figures import Figures, code_digest, is_whole

__all__ = ["Results", "default_path"]

#: Hexadecimal digits of the code's digest in a file's name.
DIGITS: Final = 16


def default_path() -> Path:
    """Return the results file of this version of the cost model, in the user's cache."""
    return cache_root() / "explore" / f"{code_digest()[:DIGITS]}.jsonl"


class Results:
    """A file of results that grows by whole lines.

    A line that a killed run left half-written is passed over, as is any other that is not a
    point's figures: what it said is evaluated again.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.known: dict[str, Figures] = {}
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise TernError(f"{self.path} must be a file to read ({error.strerror})") from None
        for line in content.split(b"\n"):
            self._take(line)
        self._torn = bool(content) and not content.endswith(b"\n")

    def _take(self, line: bytes) -> None:
        try:
            key, figures = json.loads(line).popitem()
        except (ValueError, AttributeError, KeyError):
            return
        if is_whole(figures):
            self.known[key] = figures

    def add(self, new: dict[str, Figures]) -> None:
        """Add results, and bring them to the file in one write.

        Raises
        ------
        TernError
            If the file cannot be written.
        """
        self.known |= new
        lines = "".join(json.dumps({key: figures}) + "\n" for key, figures in new.items())
        data = ("\n" if self._torn else "").encode() + lines.encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write(data)
        except OSError as error:
            raise TernError(f"{self.path} must be a file to write to ({error.strerror})") from None
        self._torn = False
