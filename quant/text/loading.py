"""Text and tokens by what a user calls them: a corpus, a file, a dataset, or packed tokens."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from quant.errors import UnreachableError
from quant.models.checkpoints import PICKLES, quiet
from quant.progress import Progress, silent
from quant.text.documents import CORPORA, Split, corpus_documents, split_documents, split_of
from quant.text.packed import is_packed, read_packed
from tern_hw.errors import TernError

__all__ = ["SEPARATOR", "Split", "load_text", "load_tokens", "named_split", "tokenize", "windows"]

#: Between two documents of a text.
SEPARATOR: Final = "\n\n"
#: Characters of a file's document, on average at least.
DOCUMENT_CHARACTERS: Final = 4096
#: What starts the name of a dataset.
HUB: Final = "hf:"
#: The column of a dataset that holds its text, where none is named.
COLUMN: Final = "text"


def load_text(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    split: str = Split.ALL,
    progress: Progress = silent,
) -> str:
    """Return the text of one source or of several, one after the other.

    Parameters
    ----------
    source : str, path, or sequence of them
        A corpus' name (brown, sotu, moby-dick), a text file, or a dataset as
        ``hf:NAME[:CONFIG[:SPLIT[:COLUMN]]]``.
    split : str
        "train", "validation", "test" or "all". Which documents of a corpus or a file belong to a
        part is fixed by a hash, so they never mix; a dataset's parts are its own.
    progress : Progress
        Shows a download.

    Raises
    ------
    UnreachableError
        If a corpus or a dataset can neither be had nor lies in a cache.
    TernError
        If a source is nothing of these, empty, or not UTF-8; or the split is left without text.
    """
    part = named_split(split)
    return SEPARATOR.join(_text(name, part, progress) for name in _several(source))


def load_tokens(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    tokenizer: PreTrainedTokenizerBase,
    split: str = Split.ALL,
    *,
    progress: Progress = silent,
) -> Tensor:
    """Return the token ids of one source or of several, without special tokens.

    Parameters
    ----------
    source : str, path, or sequence of them
        As `load_text` takes them, and files of packed tokens (``python -m quant.data pack``).
    tokenizer : PreTrainedTokenizerBase
        The model's own.
    split : str
        See `load_text`. Packed tokens have the split they were packed from, and no other.
    progress : Progress
        Shows a download.

    Returns
    -------
    int64 [T]

    Raises
    ------
    TernError
        As `load_text`; also if packed tokens are another tokenizer's.
    """
    part = named_split(split)
    pieces = []
    for name in _several(source):
        path = Path(name)
        if is_packed(path):
            pieces.append(read_packed(path, tokenizer, part))
        else:
            pieces.append(tokenize(_text(name, part, progress), tokenizer))
    return torch.cat(pieces)


def tokenize(text: str, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Return a whole text's token ids in one piece, int64 [T], without special tokens."""
    with quiet():  # it would warn that the text is longer than the model's context
        ids = tokenizer(text, add_special_tokens=False).input_ids
    if not ids:
        raise TernError("text must have at least 1 token, not 0")
    return torch.tensor(ids, dtype=torch.int64)


def windows(tokens: Tensor, length: int, stride: int | None = None) -> Tensor:
    """Cut tokens into windows; what is left at the end is dropped.

    Parameters
    ----------
    tokens : Tensor, [T]
    length : int
        Tokens of a window.
    stride : int, optional
        Tokens from one window's start to the next's; `length` where it is not given, so that
        windows do not overlap.

    Returns
    -------
    Tensor, [windows, length]
        A view of `tokens`.

    Raises
    ------
    TernError
        If a number is out of range, or there are fewer tokens than one window.
    """
    step = length if stride is None else stride
    for name, value in (("window", length), ("stride", step)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise TernError(f"{name} must be a positive integer, not {value!r}")
    if step > length:
        raise TernError(f"stride must be at most the window of {length}, not {step}")
    if len(tokens) < length:
        raise TernError(
            f"text must have at least the {length} tokens of a window, not {len(tokens)}"
        )
    return tokens.unfold(0, length, step)


def named_split(name: str) -> Split:
    """Return a split by its name."""
    if name not in list(Split):
        raise TernError(f"split must be one of {', '.join(Split)}, not {name!r}")
    return Split(name)


def _several(source: Any) -> list[str]:
    single = isinstance(source, str | os.PathLike)
    names = [os.fspath(name) for name in ([source] if single else source)]
    if not names:
        raise TernError("text must be at least one source, not none")
    return names


def _text(name: str, split: Split, progress: Progress) -> str:
    """Return the text of one source."""
    if name.startswith(HUB):
        text = _dataset_text(name, split)
    elif name in CORPORA:
        documents = split_documents(name, corpus_documents(name, progress), split)
        text = SEPARATOR.join(document.text for document in documents)
    else:
        text = _file_text(Path(name).expanduser(), split)
    if not text.strip():
        raise TernError(f"{name} must hold text in split {split}, not none")
    return text


def _file_text(path: Path, split: Split) -> str:
    """Return a text file's text, or the documents of it that belong to a split."""
    if path.is_dir():
        raise TernError(f"text must be a file, not the folder {path}")
    if not path.exists():
        raise TernError(
            f"text must be a file, {HUB}NAME, or one of {', '.join(CORPORA)}, not {str(path)!r}"
        )
    if path.suffix in PICKLES:
        raise TernError(
            f"text must be plain, not the pickle {path}, which could run code when read"
        )
    if path.suffix == ".safetensors":
        raise TernError(f"text must be plain, not the tokens of {path}")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise TernError(f"{path} must be UTF-8, which byte {error.start} is not") from None
    if split is Split.ALL:
        return text
    return SEPARATOR.join(d for d in _cut(text) if split_of(d.partition("\n")[0]) is split)


def _cut(text: str) -> list[str]:
    """Return a text's documents: runs of paragraphs, cut where the paragraphs' own hashes say.

    A paragraph ends a document with a probability in proportion to its length. So an edited one
    moves no document but its own and the next.
    """
    documents: list[list[str]] = [[]]
    for paragraph in re.split(r"\n\s*\n", text):
        documents[-1].append(paragraph)
        drawn = int.from_bytes(hashlib.sha256(paragraph.encode()).digest()[:4])
        if drawn * DOCUMENT_CHARACTERS < len(paragraph) << 32:
            documents.append([])
    return [SEPARATOR.join(document) for document in documents if document]


def _dataset_text(name: str, split: Split) -> str:
    """Return a column of a dataset of the hub, its rows joined."""
    dataset, config, part, column = _dataset_name(name)
    if split is not Split.ALL and part not in ("", split):
        raise TernError(f"split must be {part}, as {name} names it, not {split}")
    wanted = part or split
    if wanted == Split.ALL:
        raise TernError(f"{name} must name its split, as in {HUB}{dataset}:{config or ''}:test")
    from datasets import load_dataset

    try:
        rows = load_dataset(dataset, config or None, split=str(wanted))
    except MemoryError:
        raise
    except Exception as error:  # the hub, the network and a dataset's form fail in their own ways
        reason = str(error).strip().partition("\n")[0].rstrip(".:") or type(error).__name__
        raise UnreachableError(
            f"dataset {dataset!r} (config {config or 'default'}, split {wanted}) must be reachable "
            f"or in the hub's cache ({reason}); a local text file may be given instead"
        ) from error
    if column not in rows.column_names:
        names = ", ".join(rows.column_names)
        raise TernError(f"column of {dataset} must be one of {names}, not {column!r}")
    return SEPARATOR.join(str(text) for text in rows[column])


def _dataset_name(name: str) -> tuple[str, str, str, str]:
    """Return name, config, split and column of ``hf:NAME[:CONFIG[:SPLIT[:COLUMN]]]``."""
    parts = name.removeprefix(HUB).split(":")
    if not parts[0] or len(parts) > 4:
        raise TernError(f"dataset must be {HUB}NAME[:CONFIG[:SPLIT[:COLUMN]]], not {name!r}")
    dataset, config, part, column = parts + [""] * (4 - len(parts))
    return dataset, config, part, column or COLUMN
