"""Where an export may go: refused before the work is done, not after it."""

import json
import os
from pathlib import Path
from typing import Final

from tern_hw.artifact import check_output
from tern_hw.errors import TernError
from tern_hw.files import check_directory

__all__ = [
    "GGUF_MAGIC",
    "MERGED_FILE",
    "MERGED_FORMAT",
    "check_artifact",
    "check_gguf",
    "check_merged",
]

#: The file of a merged model's folder that says what made it, and that it is ours to replace.
MERGED_FILE: Final = "tern_hw.json"
MERGED_FORMAT: Final = "tern_hw.merged"
#: How a GGUF file begins.
GGUF_MAGIC: Final = b"GGUF"


def check_artifact(output: Path, *, overwrite: bool = False) -> None:
    """Refuse a path at which no artifact can be put."""
    _check_new(output, overwrite)
    check_output(output, overwrite=overwrite)


def check_merged(output: Path, *, overwrite: bool = False) -> None:
    """Refuse a path at which no merged model can be put."""
    _check_new(output, overwrite)
    check_directory(output, overwrite=overwrite)
    if output.exists() and not _is_merged(output):
        raise TernError(f"output must be a new path or a merged model to replace, not {output}")


def check_gguf(output: Path, *, overwrite: bool = False) -> None:
    """Refuse a path at which no GGUF file can be put."""
    if output.suffix != ".gguf":
        raise TernError(f"output must be a file that ends in .gguf, not {output}")
    _check_new(output, overwrite)
    if output.exists() and not _is_gguf(output):
        raise TernError(f"output must be a new path or a GGUF file to replace, not {output}")
    if not Path(os.path.realpath(output)).parent.is_dir():
        raise TernError(f"output must lie in a folder that exists, not at {output}")


def _check_new(output: Path, overwrite: bool) -> None:
    if output.exists() and not overwrite:
        raise TernError(f"output must be a new path, or --overwrite given, not {output}")


def _is_merged(folder: Path) -> bool:
    try:
        description = json.loads((folder / MERGED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(description, dict) and description.get("format") == MERGED_FORMAT


def _is_gguf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
