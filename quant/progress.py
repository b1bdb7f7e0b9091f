"""How a long job reports what it has done, without knowing who shows it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

__all__ = ["Progress", "silent"]

#: Takes a description and a total; as a context it yields a function that adds to what is done.
#: `tern_hw.cli.progress` is one.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def silent(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Report to nobody."""
    yield lambda count: None
