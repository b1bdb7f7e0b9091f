"""Turn a model's linear layers into ternary matrices, and the model into an artifact."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from quant.linears import block_linears, select_linears
from quant.progress import Progress, silent
from quant.ternary import THRESHOLD_FACTOR, ternarize
from tern_hw import __version__
from tern_hw.artifact import RawTensor, save_artifact
from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize, TernaryMatrix

__all__ = [
    "ExportReport",
    "LayerReport",
    "convert_layers",
    "convert_linear",
    "export_model",
    "kept_tensors",
    "write_artifact",
]

#: What the artifact says of how its layers were made.
METHOD: Final = "dlt, post-training: alternating least squares on scale, shift and codes"
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


@dataclass(frozen=True)
class LayerReport:
    """What ternarising one layer cost and left."""

    name: str
    #: N (outputs) and K (inputs).
    shape: tuple[int, int]
    #: Stored bits a weight, scales and shifts counted.
    bits_per_weight: float
    #: Share of trits that are 0, in [0, 1].
    zeros: float
    #: |W - D|^2 / |W|^2.
    error: float


@dataclass(frozen=True)
class ExportReport:
    """What an export made of a model."""

    layers: list[LayerReport]
    #: Tensors that stayed as they were.
    kept: list[str]
    #: Tensors that are another one's, by name: the head's embedding, as a rule.
    tied: dict[str, str]


def export_model(
    model: PreTrainedModel,
    output: str | os.PathLike[str],
    *,
    origin: str,
    group_size: GroupSize = 128,
    packing: str = "base3",
    layers: Sequence[str] = ("*",),
    overwrite: bool = False,
    progress: Progress = silent,
) -> ExportReport:
    """Ternarise the linear layers of a model's blocks and write the artifact.

    Parameters
    ----------
    model : PreTrainedModel
        A causal language model in any floating-point type; it is not changed.
    output : path
        The artifact's folder; appears only when it is whole.
    origin : str
        What the model is, in words.
    group_size : int or "row"
        Inputs per scale and shift; the last group of a row may be short.
    packing : str
        "base3" (1.6 bits a trit) or "2bit".
    layers : sequence of str
        Globs of layer names; linear layers that none matches stay as they are.
    overwrite : bool
        Replace an artifact that is there.
    progress : Progress
        Counts the layers.

    Raises
    ------
    TernError
        If a glob matches nothing, a weight is shared or not finite or does not fit binary16
        scales, or the output exists or cannot be written.
    """
    linears = select_linears(block_linears(model), layers)
    matrices, reports = convert_layers(
        model, linears, group_size=group_size, packing=packing, progress=progress
    )
    kept, tied = kept_tensors(model, linears)
    write_artifact(model, output, matrices, kept, origin=origin, tied=tied, overwrite=overwrite)
    return ExportReport(reports, list(kept), tied)


def convert_layers(
    model: nn.Module,
    linears: Mapping[str, nn.Linear],
    *,
    group_size: GroupSize,
    packing: str,
    progress: Progress = silent,
) -> tuple[dict[str, TernaryMatrix], list[LayerReport]]:
    """Ternarise some of a model's linear layers.

    Raises
    ------
    TernError
        If a layer's weight is also another tensor of the model: it could not change alone.
    """
    _check_unshared(model, linears)
    matrices, reports = {}, []
    with progress("ternarising layers", len(linears)) as advance:
        for name, linear in linears.items():
            matrices[name], report = convert_linear(name, linear, group_size, packing)
            reports.append(report)
            advance(1)
    return matrices, reports


def convert_linear(
    name: str, linear: nn.Linear, group_size: GroupSize, packing: str
) -> tuple[TernaryMatrix, LayerReport]:
    """Ternarise one linear layer; its bias is no part of the matrix."""
    weight = linear.weight.detach()
    fit = ternarize(weight, group_size, name=f"{name}.weight")
    matrix = TernaryMatrix.from_digits(
        fit.digits.numpy(),
        fit.scale.numpy(),
        fit.shift.numpy(),
        group_size=group_size,
        packing=packing,
        name=name,
    )
    zeros = (fit.trits == 0).float().mean().item()
    error = fit.relative_error(weight)
    return matrix, LayerReport(name, matrix.shape, matrix.bits_per_weight, zeros, error)


def kept_tensors(
    model: nn.Module, linears: Mapping[str, nn.Linear]
) -> tuple[dict[str, RawTensor], dict[str, str]]:
    """Return every tensor of a model but the linear layers' weights, each once.

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
        if name in converted:
            continue
        if first != name and tensor.numel():
            tied[name] = first
        else:
            kept[name] = _raw(tensor)
    return kept, tied


def write_artifact(
    model: PreTrainedModel,
    output: str | os.PathLike[str],
    matrices: Mapping[str, TernaryMatrix],
    kept: Mapping[str, RawTensor],
    *,
    origin: str,
    tied: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write ternary layers and other tensors of a model as an artifact that names its making."""
    config = json.loads(model.config.to_json_string())
    save_artifact(
        output,
        layers=matrices,
        tensors=kept,
        model_config={**config, "architectures": [type(model).__name__]},
        metadata={
            "method": METHOD,
            "threshold_factor": THRESHOLD_FACTOR,
            "origin": origin,
            "tied": dict(tied or {}),
            "versions": {
                "tern_hw": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        },
        overwrite=overwrite,
    )


def _check_unshared(model: nn.Module, linears: Mapping[str, nn.Linear]) -> None:
    """Refuse a layer whose weight also serves under another name."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter.data_ptr(), []).append(name)
    for name, linear in linears.items():
        others = [other for other in names[linear.weight.data_ptr()] if other != f"{name}.weight"]
        if others:
            raise TernError(
                f"{name}.weight must be a tensor of its own, not shared with {others[0]}"
            )


def _raw(tensor: Tensor) -> RawTensor:
    """Return a tensor's bytes under its type's name, without a copy where it is contiguous."""
    data: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return RawTensor(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), data)
