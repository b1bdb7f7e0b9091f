"""Read causal language models from folders and GGUF files, and refuse all others."""

import contextlib
import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging

from tern_hw.errors import TernError

__all__ = ["convert_gguf", "load_folder", "load_gguf", "load_tokenizer"]

#: Endings of checkpoints that unpickling would read, and so could run code.
PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
#: Floating-point types of a safetensors header.
FLOATS: Final = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}
#: What transformers and its parts raise on files that are not what they should be.
UNREADABLE: Final[tuple[type[Exception], ...]] = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    struct.error,
)


def load_folder(folder: Path) -> PreTrainedModel:
    """Load a Hugging Face folder of safetensors in the dtype it is stored in.

    Tensors stored in several floating-point types all take the one that holds every value.

    Raises
    ------
    TernError
        If the folder holds no causal language model, a quantised one, pickled weights only, or a
        damaged or incomplete checkpoint.
    """
    if not (folder / "config.json").is_file():
        raise TernError(f"model folder must hold a config.json, not as {folder} does")
    with _refusing(f"{folder / 'config.json'} must describe a model that transformers knows"):
        config = AutoConfig.from_pretrained(folder)
    _check_config(config, folder)
    _check_safetensors(folder)
    with _refusing(f"{folder} must hold a whole safetensors checkpoint"):
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, dtype=_stored_dtype(folder), output_loading_info=True
        )
    return _complete(model, info, folder)


def load_gguf(path: Path) -> PreTrainedModel:
    """Load a GGUF file, its weights dequantised to float32.

    Raises
    ------
    TernError
        If the file is truncated, is not GGUF, or holds another kind of model.

    Notes
    -----
    transformers' own `gguf_file=` needs accelerate and marks the model as quantised, so that it
    cannot be saved again. The tensors are the same, to the bit.
    """
    rule = f"{path} must be a whole GGUF file of a model that transformers knows"
    with _refusing(rule):
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    _check_config(config, path)
    with _refusing(rule):
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config)
        tensors = load_gguf_checkpoint(path, return_tensors=True, model_to_load=skeleton)["tensors"]
        model, info = type(skeleton).from_pretrained(
            None, config=config, state_dict=tensors, output_loading_info=True
        )
    return _complete(model, info, path)


def load_tokenizer(source: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a Hugging Face folder or a GGUF file."""
    # The tokenizers library raises bare exceptions.
    with _refusing(f"{source} must hold a tokenizer that transformers can read", (Exception,)):
        if source.is_dir():
            return AutoTokenizer.from_pretrained(source)
        return AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)


def convert_gguf(path: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer as a Hugging Face folder of safetensors."""
    load_gguf(path).save_pretrained(folder)
    load_tokenizer(path).save_pretrained(folder)


@contextlib.contextmanager
def _refusing(rule: str, kinds: tuple[type[Exception], ...] = UNREADABLE) -> Iterator[None]:
    """Turn what transformers raises into one sentence: the rule, and the first line of why."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except kinds as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".:") or type(error).__name__
        raise TernError(f"{rule} ({reason})") from error
    finally:
        logging.set_verbosity(verbosity)


def _check_config(config: PreTrainedConfig, source: Path) -> None:
    """Refuse what is no causal language model, or has no plain weights to quantise."""
    wanted = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    held = config.architectures or ([wanted.__name__] if wanted else [config.model_type])
    if wanted is None or wanted.__name__ not in held:
        raise TernError(f"{source} must be a causal language model, not {', '.join(held)}")
    if quantized := getattr(config, "quantization_config", None):
        method = dict(quantized).get("quant_method", "an unnamed method")
        raise TernError(f"{source} must hold plain weights, not ones quantised by {method}")


def _check_safetensors(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    if any(name.endswith(".safetensors") for name in names):
        return
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        raise TernError(
            f"{folder} must hold safetensors weights, not only pickled ones ({pickles[0]}), which "
            "could run code when read"
        )
    raise TernError(f"{folder} must hold safetensors weights, not only {', '.join(names)}")


def _stored_dtype(folder: Path) -> torch.dtype:
    """Return the floating-point type that holds the checkpoint's tensors exactly.

    The config's word is not enough: transformers would round what is stored in a wider type.
    """
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    floats = [dtype for name, dtype in FLOATS.items() if name in names]
    return functools.reduce(torch.promote_types, floats) if floats else torch.float32


def _complete(model: PreTrainedModel, info: dict[str, Any], source: Path) -> PreTrainedModel:
    """Refuse a model some of whose weights transformers had to invent."""
    if missing := sorted(info["missing_keys"]):
        raise TernError(f"{source} must hold every tensor of its model, but lacks {missing[0]}")
    return model
