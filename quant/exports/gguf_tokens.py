"""A byte-level BPE tokenizer as the metadata of a GGUF file."""

import json
import tempfile
from pathlib import Path
from typing import Any, Final

import gguf
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from quant.models.checkpoints import quiet
from tern_hw.errors import TernError

__all__ = ["add_tokenizer"]

#: How Llama 3's tokenizer cuts text, by its tokenizer.json.
LLAMA3_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
#: What a file says whose tokenizer cuts text in a way that GGUF has no name for.
UNNAMED: Final = "default"


def add_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig
) -> str | None:
    """Write a tokenizer's tokens, merges and special tokens.

    Returns
    -------
    str or None
        GGUF's name for how the tokenizer cuts text into words, which llama.cpp goes by; None where
        it has none that is known here.

    Raises
    ------
    TernError
        If it is not a byte-level BPE tokenizer with merges, or has more tokens than the model.
    """
    with tempfile.TemporaryDirectory(prefix="tern-tokenizer-") as scratch:
        with quiet():
            tokenizer.save_pretrained(scratch)
            # gguf takes from it the special tokens that the tokenizer does not name.
            config.save_pretrained(scratch)
        file = Path(scratch) / "tokenizer.json"
        document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        _check_byte_level(document, tokenizer)
        tokens, types = _tokens(tokenizer, config.vocab_size)
        name = _pre_tokenizer(document.get("pre_tokenizer"))
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name or UNNAMED)
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        special = gguf.SpecialVocab(scratch, load_merges=True, n_vocab=len(tokens))
        special.add_to_gguf(writer, quiet=True)
    return name


def _check_byte_level(document: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    model = document.get("model", {})
    decoder = (document.get("decoder") or {}).get("type")
    if model.get("type") != "BPE" or decoder != "ByteLevel" or not model.get("merges"):
        raise TernError(
            "tokenizer must be a byte-level BPE with merges to become GGUF here, not "
            f"{type(tokenizer).__name__} of type {model.get('type')}; --format merged takes any"
        )


def _tokens(
    tokenizer: PreTrainedTokenizerBase, size: int
) -> tuple[list[str], list[gguf.TokenType]]:
    """Return every id's token and type; ids that the tokenizer leaves out are unused."""
    vocabulary = {index: token for token, index in tokenizer.get_vocab().items()}
    if max(vocabulary) >= size:
        raise TernError(
            f"tokenizer must have at most the model's {size} tokens, not {max(vocabulary) + 1}"
        )
    added = {index: token.special for index, token in tokenizer.added_tokens_decoder.items()}
    tokens = [vocabulary.get(index, f"[PAD{index}]") for index in range(size)]
    types = []
    for index in range(size):
        if index not in vocabulary:
            types.append(gguf.TokenType.UNUSED)
        elif index not in added:
            types.append(gguf.TokenType.NORMAL)
        else:
            special = added[index]
            types.append(gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED)
    return tokens, types


def _pre_tokenizer(description: dict[str, Any] | None) -> str | None:
    """Return GGUF's name for a tokenizer.json's way to cut text, of the few known here."""
    steps = (description or {}).get("pretokenizers") or [description or {}]
    last = steps[-1]
    if last.get("type") != "ByteLevel":
        return None
    if last.get("use_regex", True):
        if len(steps) == 1:
            return "gpt-2"
        digits = steps[0].get("type") == "Digits" and steps[0].get("individual_digits")
        return "smollm" if len(steps) == 2 and digits else None
    split = steps[0].get("pattern", {}).get("Regex") if len(steps) == 2 else None
    return "llama-bpe" if split == LLAMA3_SPLIT else None
