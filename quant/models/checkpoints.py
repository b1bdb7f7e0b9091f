"""Read causal language models from folders and GGUF files, and refuse all others."""

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch import Tensor
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

__all__ = [
    "PICKLES",
    "build_model",
    "convert_gguf",
    "load_folder",
    "load_gguf",
    "load_skeleton",
    "load_tokenizer",
    "quiet",
]

#: Endings of checkpoints that unpickling would read, and so could run code.
PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
#: Floating-point types of a safetensors header.
FLOATS: Final = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def load_skeleton(source: Path) -> PreTrainedModel:
    """Build the model of a folder or a GGUF file without its weights, on the meta device.

    Raises
    ------
    TernError
        If it is no causal language model, or a quantised one.
    """
    if source.is_dir():
        file = source / "config.json"
        if not file.is_file():
            raise TernError(f"model folder must hold a config.json, not as {source} does")
        rule = f"{file} must describe a model that transformers knows"
        where: dict[str, Any] = {"pretrained_model_name_or_path": source}
    else:
        rule = f"{source} must be a whole GGUF file of a model that transformers knows"
        where = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    with _refusing(rule):
        config = AutoConfig.from_pretrained(**where)
    _check_config(config, source)
    with _refusing(rule), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def load_folder(folder: Path) -> PreTrainedModel:
    """Load a Hugging Face folder of safetensors in the dtype it is stored in.

    Tensors stored in several floating-point types all take the one that holds every value.

    Raises
    ------
    TernError
        If the folder holds no causal language model, a quantised one, pickled weights only, or a
        damaged or incomplete checkpoint.
    """
    load_skeleton(folder)  # refuses a wrong config before the weights can be blamed for it
    _check_safetensors(folder)
    with _refusing(f"{folder} must hold a whole safetensors checkpoint"):
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            use_safetensors=True,
            dtype=_stored_dtype(folder),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
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
    skeleton = load_skeleton(path)
    with (
        _refusing(f"{path} must be a whole GGUF file of a model that transformers knows"),
        contextlib.redirect_stderr(io.StringIO()),  # its bar heeds no setting
    ):
        read = load_gguf_checkpoint(path, return_tensors=True, model_to_load=skeleton)
    return build_model(skeleton, read["tensors"], path)


def build_model(
    skeleton: PreTrainedModel,
    tensors: dict[str, Tensor],
    source: Path,
    *,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """Build a skeleton's model from tensors by their names in transformers.

    Parameters
    ----------
    skeleton : PreTrainedModel
        As `load_skeleton` gives it.
    tensors : dict of str to Tensor
        All of the model's own; one that is tied to another may be left out.
    source : Path
        What errors name.
    dtype : torch.dtype, optional
        Of the model; what transformers chooses where not given.

    Raises
    ------
    TernError
        If a tensor is missing or has another shape than the configuration says.
    """
    options = {} if dtype is None else {"dtype": dtype}
    with _refusing(f"{source} must hold the tensors of a whole model"):
        model, info = type(skeleton).from_pretrained(
            None,
            config=skeleton.config,
            state_dict=tensors,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    return _complete(model, info, source)


def load_tokenizer(source: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a Hugging Face folder or a GGUF file."""
    with _refusing(f"{source} must hold a tokenizer that transformers can read"):
        if source.is_dir():
            return AutoTokenizer.from_pretrained(source)
        return AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)


def convert_gguf(path: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer as a Hugging Face folder of safetensors."""
    model, tokenizer = load_gguf(path), load_tokenizer(path)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _refusing(rule: str) -> Iterator[None]:
    """Turn what transformers raises into one sentence: the rule, and the first line of why."""
    try:
        with quiet():
            yield
    except MemoryError:
        raise
    # A foreign file reaches deep into transformers, torch and tokenizers unchecked: a head count
    # of 0 ends in a ZeroDivisionError, an unknown dtype in an AttributeError. Whatever they raise
    # while they read it is the file's fault, and only calls of theirs stand in these blocks.
    except Exception as error:
        raise TernError(f"{rule} ({_reason(error)})") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' warnings and its progress bars, which would stand beside ours, silent."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    hook = logging.set_tqdm_hook(
        lambda make, arguments, options: make(*arguments, **{**options, "disable": True})
    )
    try:
        yield
    finally:
        logging.set_tqdm_hook(hook)
        logging.set_verbosity(verbosity)


def _reason(error: Exception) -> str:
    """Return why, in one line."""
    if isinstance(error.__context__, UnicodeDecodeError):
        # transformers takes any such file for a config.json, a GGUF file too.
        return "it holds text that is not UTF-8"
    if isinstance(error, KeyError):
        return f"there is no {error}"
    return str(error).strip().partition("\n")[0].rstrip(".:") or type(error).__name__


def _check_config(config: PreTrainedConfig, source: Path) -> None:
    """Refuse what is no causal language model, or has no plain weights to quantise."""
    names = config.architectures
    if names is not None and not (
        isinstance(names, list) and all(isinstance(name, str) for name in names)
    ):
        raise TernError(f"architectures of {source} must be a list of names, not {names!r:.80}")
    wanted = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    held = names or ([wanted.__name__] if wanted else [config.model_type])
    if wanted is None or wanted.__name__ not in held:
        raise TernError(f"{source} must be a causal language model, not {', '.join(held)}")
    if quantized := getattr(config, "quantization_config", None):
        known = isinstance(quantized, dict) and "quant_method" in quantized
        method = quantized["quant_method"] if known else "an unnamed method"
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
    if mismatched := sorted(info["mismatched_keys"]):
        name, stored, wanted = mismatched[0]
        raise TernError(
            f"{source}: {name} must have shape {list(wanted)}, as the model's configuration says, "
            f"not {list(stored)}"
        )
    if missing := sorted(info["missing_keys"]):
        raise TernError(f"{source} must hold every tensor of its model, but lacks {missing[0]}")
    return model
