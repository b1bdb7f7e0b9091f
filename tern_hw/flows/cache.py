"""A store of compiled things under the hash of everything that went into them."""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tern_hw.cache import CACHE_VARIABLE, cache_root
from tern_hw.errors import TernError
from tern_hw.files import atomic_directory

__all__ = ["cached", "digest"]

#: An entry that nobody asked for in this time (s) is dropped when a new one is made.
UNUSED_S = 14 * 24 * 3600


def digest(parts: Sequence[str | bytes]) -> str:
    """Return the SHA-256 of the parts, each with its length, as 64 hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


def cached(kind: str, parts: Sequence[str | bytes], build: Callable[[Path], None]) -> Path:
    """Return the directory that `build` filled from exactly these parts, building it at most once.

    Parameters
    ----------
    kind
        Folder of the store, such as "model".
    parts
        Everything the result depends on: texts, flags, tool versions.
    build
        Fills an empty directory; runs only where no entry exists. If it raises, nothing is kept.

    Returns
    -------
    Path
        The entry; whoever else asks for the same parts meanwhile waits and gets the same.

    Raises
    ------
    TernError
        If the store cannot be written.
    """
    shelf = cache_root() / kind
    entry = shelf / digest(parts)[:32]
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        with _locked(entry.with_suffix(".lock")):
            if not entry.is_dir():
                _drop_unused(shelf)
                with atomic_directory(entry) as fresh:
                    build(fresh)
            os.utime(entry)
    except OSError as error:
        raise TernError(
            f"the cache directory (${CACHE_VARIABLE}) must be writable, not {shelf} "
            f"({error.strerror})"
        ) from None
    return entry


def _drop_unused(shelf: Path) -> None:
    # Work that died half-way ages like the rest.
    limit = time.time() - UNUSED_S
    for old in shelf.iterdir():
        if old.is_dir() and old.stat().st_mtime < limit:
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
