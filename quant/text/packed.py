"""Packed tokens: a text's token ids in one safetensors file that knows its tokenizer."""

import hashlib
import json
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from quant.text.documents import Split
from tern_hw.errors import TernError
from tern_hw.files import write_atomic

__all__ = ["is_packed", "read_packed", "vocabulary_sha256", "write_packed"]

#: What the file's metadata calls its form.
FORMAT: Final = "tern_hw.tokens"
VERSION: Final = "1"
#: The file's one tensor.
TENSOR: Final = "tokens"
#: A vocabulary up to this size takes two bytes a token.
MAX_UINT16: Final = 1 << 16


def vocabulary_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a checksum of a tokenizer's vocabulary: every token and its id."""
    pairs = sorted(tokenizer.get_vocab().items(), key=lambda pair: (pair[1], pair[0]))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def write_packed(
    path: Path, tokens: Tensor, tokenizer: PreTrainedTokenizerBase, *, name: str, split: Split
) -> None:
    """Write tokens ``[T]`` as uint16 where the vocabulary allows, else int32.

    Parameters
    ----------
    path : Path
    tokens : int64 [T]
    tokenizer : PreTrainedTokenizerBase
        The one that made them.
    name : str
        What the tokenizer is called.
    split : Split
        The part of the text that they are.
    """
    kind = np.uint16 if int(tokens.max()) < MAX_UINT16 else np.int32
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "tokenizer": name,
        "vocabulary_sha256": vocabulary_sha256(tokenizer),
        "split": str(split),
        "count": str(len(tokens)),
    }
    write_atomic(path, save({TENSOR: tokens.numpy().astype(kind)}, metadata=metadata))


def is_packed(path: Path) -> bool:
    """Tell whether a path is to be read as packed tokens."""
    return path.suffix == ".safetensors" and path.is_file()


def read_packed(path: Path, tokenizer: PreTrainedTokenizerBase, split: Split) -> Tensor:
    """Return packed tokens, int64 [T].

    Raises
    ------
    TernError
        If the file is not of this form, damaged, of another tokenizer, or of another split.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            found = metadata.get("format"), metadata.get("version")
            if found != (FORMAT, VERSION) or list(file.keys()) != [TENSOR]:
                raise TernError(
                    f"{path} must hold packed tokens of version {VERSION}, and nothing else"
                )
            tokens = file.get_tensor(TENSOR)
    except (SafetensorError, OSError) as error:
        raise TernError(f"{path} must be a whole safetensors file ({error})") from None
    _check(path, tokens, metadata, tokenizer)
    if split is not Split.ALL and metadata.get("split") != split:
        raise TernError(
            f"{path} must be packed from the {split} split, not {metadata.get('split')}"
        )
    return torch.from_numpy(tokens.astype(np.int64))


def _check(
    path: Path,
    tokens: np.ndarray,
    metadata: dict[str, str],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    if tokens.dtype not in (np.uint16, np.int32) or tokens.ndim != 1 or not tokens.size:
        raise TernError(
            f"{path}: tokens must be uint16 or int32 [T], not {tokens.dtype} {tokens.shape}"
        )
    if metadata.get("count") != str(tokens.size):
        raise TernError(
            f"{path} must hold {metadata.get('count')} tokens, as it says, not {tokens.size}"
        )
    if metadata.get("vocabulary_sha256") != vocabulary_sha256(tokenizer):
        raise TernError(
            f"{path} must be packed with the model's own tokenizer, not with that of "
            f"{metadata.get('tokenizer')!r:.80}, whose vocabulary differs"
        )
    low, high, size = int(tokens.min()), int(tokens.max()), len(tokenizer)
    if low < 0 or high >= size:
        raise TernError(
            f"{path}: tokens must be from 0 to {size - 1}, not {high if low >= 0 else low}"
        )
