"""Prepared models on disk: a Hugging Face folder, the quantisers beside it, and what made them.

The folder is a whole Hugging Face model of the weights before quantisation, which transformers
loads by itself; `quantizers.safetensors` holds each layer's scales, shifts or codes, and
`quantization.json` the method, its options, and a checksum of every tensor file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.cache import file_sha256
from quant.methods import Method, MethodConfig, method_config, named_method, quantized_linears
from quant.methods.base import attach
from quant.models.checkpoints import load_folder, quiet
from quant.models.linears import block_linears, select_linears
from quant.models.tensors import save_tensors
from quant.versions import versions
from tern_hw.errors import TernError
from tern_hw.files import atomic_directory

__all__ = [
    "Prepared",
    "is_prepared",
    "load_prepared",
    "plain_state",
    "prepared_checksums",
    "quantizer_state",
    "save_prepared",
]

#: The file that makes a folder a prepared one.
DESCRIPTION: Final = "quantization.json"
WEIGHTS: Final = "model.safetensors"
QUANTIZERS: Final = "quantizers.safetensors"
#: Version of the folder's form.
FORMAT: Final = 1

#: How PyTorch names a parametrised weight and the parametrisation's own tensors.
ORIGINAL: Final = ".parametrizations.weight.original"
QUANTIZER: Final = ".parametrizations.weight.0."


@dataclass(frozen=True)
class Prepared:
    """A model whose layers have quantisers, and where it comes from."""

    #: Computes with its quantised weights.
    model: PreTrainedModel
    method: Method
    config: MethodConfig
    #: What the unquantised model is, in words.
    origin: str
    #: What else was recorded of its making: steps, seed, data.
    training: dict[str, Any]


def plain_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a prepared model's own tensors under their own names, each shared one once.

    Parameters
    ----------
    state : dict of str to Tensor
        The model's `state_dict()`.
    """
    plain: dict[str, Tensor] = {}
    seen: set[tuple[int, torch.Size]] = set()
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tensor.shape)
        if QUANTIZER in name or (key in seen and tensor.numel()):
            continue
        seen.add(key)
        plain[name.replace(ORIGINAL, ".weight")] = tensor.contiguous()
    return plain


def quantizer_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of every layer's quantiser, as `<layer>.<tensor>`."""
    return {
        name.replace(QUANTIZER, "."): tensor.contiguous()
        for name, tensor in state.items()
        if QUANTIZER in name
    }


def save_prepared(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    method: str,
    config: MethodConfig,
    origin: str,
    training: dict[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a prepared model; the folder appears only when it is whole.

    Parameters
    ----------
    folder : Path
    model : PreTrainedModel
        Prepared by the method, and perhaps trained.
    tokenizer : PreTrainedTokenizerBase
    method : str
        The method's name.
    config : MethodConfig
        Its options.
    origin : str
        What the unquantised model is, in words.
    training : dict, optional
        What JSON can hold of how it was made.
    state : dict of str to Tensor, optional
        The model's tensors, where it is divided among processes; left out, its `state_dict()`.
    overwrite : bool
        Replace a folder that is there.
    """
    tensors = model.state_dict() if state is None else state
    with atomic_directory(folder, overwrite=overwrite) as fresh:
        save_tensors(fresh / WEIGHTS, plain_state(tensors), {"format": "pt"})
        save_tensors(fresh / QUANTIZERS, quantizer_state(tensors))
        with quiet():
            # As save_pretrained would record it, which cannot be used here: it would write the
            # parametrisation's names.
            model.config.architectures = model.config.architectures or [type(model).__name__]
            model.config.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
        description = {
            "format": FORMAT,
            "method": method,
            "options": config.to_json(),
            "origin": origin,
            "training": training or {},
            "sha256": {name: file_sha256(fresh / name) for name in (WEIGHTS, QUANTIZERS)},
            "versions": versions(),
        }
        (fresh / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def is_prepared(folder: Path) -> bool:
    """Tell whether a folder was written by `save_prepared`."""
    return (folder / DESCRIPTION).is_file()


def load_prepared(folder: Path) -> Prepared:
    """Read a prepared model back.

    Raises
    ------
    TernError
        If a file is missing, damaged, of an unknown version, or does not fit the model.
    """
    description = _description(folder)
    for name in (WEIGHTS, QUANTIZERS):
        _check_file(folder / name, description["sha256"].get(name))
    method = named_method(description["method"])
    config = method_config(description["method"], description["options"])
    model = load_folder(folder)
    linears = select_linears(block_linears(model), config.layers)
    for linear in linears.values():
        attach(linear, method.blank(linear.weight.detach(), config))
    _load_quantizers(model, folder / QUANTIZERS)
    training = description.get("training", {})
    return Prepared(model, method, config, str(description["origin"]), training)


def prepared_checksums(folder: Path) -> dict[str, str]:
    """Return the sha256 of each tensor file of a prepared model, as its description records it."""
    return {str(name): str(sha256) for name, sha256 in _description(folder)["sha256"].items()}


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TernError(f"{path} must be a JSON file ({error})") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        found = description.get("format") if isinstance(description, dict) else description
        raise TernError(f"{path} must have format {FORMAT}, not {found!r:.40}")
    kinds = {"method": str, "options": dict, "origin": str, "sha256": dict}
    for name, kind in kinds.items():
        if not isinstance(description.get(name), kind):
            raise TernError(
                f"{path}: {name} must be a {kind.__name__}, not {description.get(name)!r:.40}"
            )
    return description


def _check_file(path: Path, sha256: Any) -> None:
    if not path.is_file():
        raise TernError(f"prepared model must hold {path.name}, which is missing in {path.parent}")
    if (found := file_sha256(path)) != sha256:
        raise TernError(f"{path} must have sha256 {sha256}, as recorded, not {found}")


def _load_quantizers(model: nn.Module, path: Path) -> None:
    """Fill the quantisers' tensors; every one must be there, in its shape and type."""
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise TernError(f"{path} must be a safetensors file ({error})") from None
    wanted = {
        f"{name}.{part}": tensor
        for name, _, quantizer in quantized_linears(model)
        for part, tensor in quantizer.state_dict().items()
    }
    for name in wanted.keys() ^ stored.keys():
        rule = "hold" if name in wanted else "not hold"
        raise TernError(f"{path} must {rule} {name}, as its method's quantisers have it")
    with torch.no_grad():
        for name, tensor in wanted.items():
            found = stored[name]
            if found.shape != tensor.shape or found.dtype != tensor.dtype:
                raise TernError(
                    f"{path}: {name} must be {tensor.dtype} {list(tensor.shape)}, "
                    f"not {found.dtype} {list(found.shape)}"
                )
            if found.is_floating_point() and not bool(found.isfinite().all()):
                raise TernError(f"{path}: {name} must be finite, not {found.flatten()[0]}")
            tensor.copy_(found)
