"""Files and folders appear whole or not at all: made beside their place, then renamed."""

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tern_hw.errors import TernError

__all__ = ["atomic_directory", "check_directory", "write_atomic"]

#: Arguments of Linux' renameat2(2): "relative to the working directory", "swap the two".
AT_FDCWD: Final = -100
RENAME_EXCHANGE: Final = 2
#: Errors of a full disk or of a file too large for it, which name no file.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    A symbolic link stays and its target is replaced; a device or a pipe is written to as it is.
    A file that is replaced passes its permissions on; a new one has those of the umask.

    Parameters
    ----------
    path : path
        In a folder that exists.
    content : bytes or str
        A str is written as UTF-8.

    Raises
    ------
    TernError
        If the path cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_bytes(data)
        else:
            _replace_file(target, data)
    except OSError as error:
        raise _unwritable(path, error) from None


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill, and move it to `path` when the block ends without an error.

    Parameters
    ----------
    path : path
        In a folder that exists.
    overwrite : bool
        Replace the folder that is there; the old one is removed only once the new one has its
        place. If False, an existing path is refused.

    Yields
    ------
    Path
        A folder beside `path`; removed if the block raises. Who may read and write what the block
        put there is decided by the umask, whatever mode it was made with.

    Raises
    ------
    TernError
        If the path exists (without `overwrite`), is not a folder, or cannot be written: also where
        it is the block that could not write.
    """
    check_directory(path, overwrite=overwrite)
    target = Path(os.path.realpath(path))
    temporary = _beside(target)
    try:
        temporary.mkdir()
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        try:
            yield temporary
        except OSError as error:
            # The user knows the path that was asked for, not the hidden one.
            if _concerns(error, temporary):
                raise _unwritable(path, error) from None
            raise
        try:
            _settle_tree(temporary)
            _move_directory(temporary, target)
        except OSError as error:
            raise _unwritable(path, error) from None
    finally:
        # Gone already after a plain move; the old folder after an exchange.
        shutil.rmtree(temporary, ignore_errors=True)


def check_directory(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse at once a path at which `atomic_directory` could not put a folder.

    Raises
    ------
    TernError
        If the path exists (without `overwrite`), is not a folder, or its own folder does not exist.
    """
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError as error:
        # A link to nothing is fine where a folder can take the place it names.
        if not Path(os.path.realpath(path)).parent.is_dir():
            raise _unwritable(path, error) from None
        return
    except OSError as error:
        raise _unwritable(path, error) from None
    if not stat.S_ISDIR(mode):
        raise TernError(f"output must be a folder, not the file {os.fspath(path)}")
    if not overwrite:
        raise TernError(f"output must be a new path, not {os.fspath(path)}, which exists")


def _unwritable(path: str | os.PathLike[str], error: OSError) -> TernError:
    return TernError(f"output must be writable, not {os.fspath(path)} ({error.strerror})")


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


def _concerns(error: OSError, folder: Path) -> bool:
    """Tell whether an error is about a path in a folder, or about the disk."""
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return error.errno in NO_ROOM
    return Path(os.fsdecode(error.filename)).is_relative_to(folder)


def _replace_file(target: Path, data: bytes) -> None:
    temporary = _beside(target)
    try:
        with temporary.open("xb") as file:
            if target.is_file():
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settle_tree(folder: Path) -> None:
    """Give everything in a folder the umask's permissions, and bring it to the disk."""
    # The folder itself was made with all permissions but the umask's.
    allowed = stat.S_IMODE(folder.stat().st_mode) & 0o777
    for path in folder.rglob("*"):
        if not path.is_symlink():
            # What its owner may do, all may whom the umask does not bar.
            owner = path.stat().st_mode >> 6 & 0o7
            path.chmod(owner * 0o111 & allowed)
            _sync(path)
    _sync(folder)


def _move_directory(source: Path, target: Path) -> None:
    """Move a folder to its place; what was there is at `source` or gone afterwards."""
    if not target.exists():
        source.rename(target)
    elif not _exchange(source, target):
        _replace_directory(source, target)
    _sync(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0


def _replace_directory(source: Path, target: Path) -> None:
    """Replace a folder in two steps: between them the old one lies beside its place."""
    old = _beside(target)
    target.rename(old)
    try:
        source.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
