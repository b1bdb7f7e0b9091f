"""Tensor files: safetensors, and one sentence where the disk takes no more."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tern_hw.errors import TernError

__all__ = ["save_tensors"]


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file, in a folder that is not in its place yet.

    Raises
    ------
    TernError
        If the file cannot be written whole: a full disk, as a rule.
    """
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except (OSError, SafetensorError) as error:
        # The library's own error names neither the file nor a number of an error.
        raise TernError(f"the disk must have room for {path.name} ({error})") from error
