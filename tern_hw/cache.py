"""Where everything that is slow to make is kept: one folder of the user's for all of it."""

import os
from pathlib import Path
from typing import Final

__all__ = ["CACHE_VARIABLE", "cache_root"]

#: Environment variable that moves the cache.
CACHE_VARIABLE: Final = "TERN_HW_CACHE"


def cache_root() -> Path:
    """Return the cache folder: $TERN_HW_CACHE, else tern-hw in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tern-hw"
