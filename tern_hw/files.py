"""Files appear whole or not at all: written beside their place, then renamed."""

import contextlib
import os
import tempfile
from pathlib import Path

from tern_hw.errors import TernError

__all__ = ["write_atomic"]


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises
    ------
    TernError
        If the folder cannot be written to.
    """
    target = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise TernError(f"{target} must be writable ({error.strerror})") from None
