"""Write a model as an artifact: its matrices, its other tensors, its tokenizer, its making."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.methods import MethodConfig
from quant.models.checkpoints import quiet
from quant.models.tensors import raw_tensor
from quant.versions import versions
from tern_hw.artifact import RawTensor, save_artifact
from tern_hw.matrix import TernaryMatrix

__all__ = ["POST_TRAINING", "kept_tensors", "making", "tokenizer_files", "write_artifact"]

#: The method of a model that is ternarised here and now: alternating least squares on scale, shift
#: and codes.
POST_TRAINING: Final = "als"
#: How PyTorch begins the names of a parametrised weight's tensors, below the layer's.
PARAMETRIZED: Final = ".parametrizations.weight."


def kept_tensors(
    model: nn.Module, linears: Mapping[str, Any]
) -> tuple[dict[str, RawTensor], dict[str, str]]:
    """Return every tensor of a model but the linear layers' weights, each once.

    Of prepared layers neither the weight before quantisation nor the quantiser's tensors are kept.

    Returns
    -------
    kept : dict of str to RawTensor
        Bytes and types as the model has them.
    tied : dict of str to str
        Names of tensors that are another one's, and of that one.
    """
    converted = {f"{name}.weight" for name in linears}
    kept: dict[str, RawTensor] = {}
    tied: dict[str, str] = {}
    names: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in model.state_dict().items():
        first = names.setdefault((tensor.data_ptr(), tensor.shape), name)
        if name in converted or PARAMETRIZED in name:
            continue
        if first != name and tensor.numel():
            tied[name] = first
        else:
            kept[name] = raw_tensor(tensor)
    return kept, tied


def making(
    method: str, config: MethodConfig, training: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what an exported model says of its method: name, options, and training if any."""
    return {"method": method, "options": config.to_json(), "training": dict(training or {})}


def write_artifact(
    model: PreTrainedModel,
    output: str | os.PathLike[str],
    matrices: Mapping[str, TernaryMatrix],
    kept: Mapping[str, RawTensor],
    *,
    origin: str,
    made: Mapping[str, Any] | None = None,
    tied: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> None:
    """Write ternary layers and other tensors of a model as an artifact that names its making.

    `made` is of `making`'s form; left out, the layers are those of `convert_layers`.
    """
    config = json.loads(model.config.to_json_string())
    save_artifact(
        output,
        layers=matrices,
        tensors=kept,
        model_config={**config, "architectures": [type(model).__name__]},
        metadata={
            **(made or {"method": POST_TRAINING}),
            "origin": origin,
            "tied": dict(tied or {}),
            "versions": versions(),
        },
        files=files,
        overwrite=overwrite,
    )


def tokenizer_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, bytes]:
    """Return a tokenizer's files by name, as transformers saves and reads them."""
    with tempfile.TemporaryDirectory(prefix="tern-tokenizer-") as scratch:
        with quiet():
            tokenizer.save_pretrained(scratch)
        files = sorted(path for path in Path(scratch).iterdir() if path.is_file())
        return {path.name: path.read_bytes() for path in files}
