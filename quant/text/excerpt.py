"""The English text that the repository carries: one chapter of a novel in the public domain."""

from importlib.resources import files

__all__ = ["excerpt"]


def excerpt() -> str:
    """Return chapter 1 of Moby-Dick, 12 kB (its source: moby_dick/SOURCE.md)."""
    return (files("quant.text") / "moby_dick" / "chapter_1.txt").read_text(encoding="utf-8")
