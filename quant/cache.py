"""Folders that are slow to make, kept in the user's cache and checked before each use."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tern_hw.cache import CACHE_VARIABLE, cache_root
from tern_hw.errors import TernError
from tern_hw.files import atomic_directory

__all__ = ["cached_folder", "file_sha256", "make_root"]

#: The file that lists the sha256 of a cached folder's other files.
MANIFEST: Final = "CACHED.json"


def cached_folder(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, made first where it is missing or damaged.

    Parameters
    ----------
    name : str
        Names the content: whatever changes the content changes the name.
    make : callable
        Fills the empty folder it is given. The folder takes its name only after that, so an
        interrupted run leaves nothing that a later one could mistake for the whole.

    Returns
    -------
    Path
        Every file in it has the size and sha256 that were written down when it was made.
    """
    folder = cache_root() / name
    if _is_intact(folder):
        return folder
    make_root()
    # Replaced only by a whole one; two processes that do this at once both end with it.
    with atomic_directory(folder, overwrite=True) as fresh:
        make(fresh)
        (fresh / MANIFEST).write_text(json.dumps(_listing(fresh), indent=1))
    return folder


def make_root() -> Path:
    """Return the cache folder, made where it is missing.

    Raises
    ------
    TernError
        If it cannot be.
    """
    root = cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TernError(
            f"cache folder (${CACHE_VARIABLE}) must be writable, not {root} ({error.strerror})"
        ) from None
    return root


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listing(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file in the folder but the manifest, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def _is_intact(folder: Path) -> bool:
    try:
        recorded = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    return bool(recorded == _listing(folder))
