"""Tensors in files: their types' names, their bytes, and a sentence where the disk is full."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tern_hw.artifact import RawTensor
from tern_hw.errors import TernError

__all__ = ["raw_tensor", "save_tensors", "torch_tensor"]

#: A torch type's name in a safetensors header.
DTYPE_NAMES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
#: A torch type by that name.
TORCH_TYPES: Final = {name: dtype for dtype, name in DTYPE_NAMES.items()}


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


def raw_tensor(tensor: Tensor) -> RawTensor:
    """Return a tensor's bytes under its type's name, without a copy where it is contiguous."""
    data: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return RawTensor(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), data)


def torch_tensor(raw: RawTensor) -> Tensor:
    """Return the tensor of some bytes and a type's name.

    Raises
    ------
    TernError
        If torch has no such type.
    """
    if raw.dtype not in TORCH_TYPES:
        raise TernError(f"tensor type must be one of {', '.join(TORCH_TYPES)}, not {raw.dtype}")
    return torch.from_numpy(raw.data.copy()).view(TORCH_TYPES[raw.dtype]).reshape(raw.shape)
