"""Turn a model's linear layers into ternary matrices, and the model into an artifact."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.methods import MethodConfig, quantized_linears
from quant.methods.base import latent_weight
from quant.models.checkpoints import quiet
from quant.models.linears import block_linears, check_unshared, select_linears
from quant.models.prepared import Prepared
from quant.progress import Progress, silent
from quant.ternary import TernaryFit, ternarize
from tern_hw import __version__
from tern_hw.artifact import RawTensor, save_artifact
from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize, TernaryMatrix

__all__ = [
    "ExportReport",
    "LayerReport",
    "check_ternary",
    "convert_layers",
    "convert_linear",
    "convert_prepared",
    "export_model",
    "export_prepared",
    "kept_tensors",
    "making",
    "not_ternary",
    "tokenizer_files",
    "versions",
    "write_artifact",
]

#: The method of a model that is ternarised here and now: alternating least squares on scale, shift
#: and codes.
POST_TRAINING: Final = "als"
#: How PyTorch begins the names of a parametrised weight's tensors, below the layer's.
PARAMETRIZED: Final = ".parametrizations.weight."
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
    #: |W - D|^2 / |W|^2, with W the weight that the layer's levels stand for: the model's own, or
    #: the latent one as training left it.
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
    config = MethodConfig(group_size=group_size, layers=tuple(layers))
    write_artifact(
        model,
        output,
        matrices,
        kept,
        origin=origin,
        made=making(POST_TRAINING, config),
        tied=tied,
        overwrite=overwrite,
    )
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
    check_unshared(model, linears)
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
    return _matrix(name, weight, ternarize(weight, group_size, name=f"{name}.weight"), packing)


def export_prepared(
    prepared: Prepared,
    output: str | os.PathLike[str],
    *,
    packing: str = "base3",
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ExportReport:
    """Write a prepared model, trained or not, as an artifact of its quantisers' trits.

    Parameters
    ----------
    prepared : Prepared
        Of a ternary method; its model is not changed.
    output : path
        The artifact's folder; appears only when it is whole.
    packing : str
        "base3" (1.6 bits a trit) or "2bit".
    tokenizer : PreTrainedTokenizerBase, optional
        Written into the folder, from which `load_tokenizer` reads it again.
    overwrite : bool
        Replace an artifact that is there.
    progress : Progress
        Counts the layers.

    Raises
    ------
    TernError
        If the method is not ternary, a scale or shift is not finite in binary16, or the output
        exists or cannot be written.
    """
    check_ternary(prepared)
    matrices, reports = convert_prepared(prepared.model, packing=packing, progress=progress)
    kept, tied = kept_tensors(prepared.model, matrices)
    write_artifact(
        prepared.model,
        output,
        matrices,
        kept,
        origin=prepared.origin,
        made=making(prepared.method.name, prepared.config, prepared.training),
        tied=tied,
        files=tokenizer_files(tokenizer) if tokenizer is not None else {},
        overwrite=overwrite,
    )
    return ExportReport(reports, list(kept), tied)


def check_ternary(prepared: Prepared, form: str = "artifact") -> None:
    """Refuse a method whose levels are not trits with a scale and a shift."""
    if not all(quantizer.ternary for _, _, quantizer in quantized_linears(prepared.model)):
        raise not_ternary(prepared.method.name, form)


def not_ternary(method: str, form: str) -> TernError:
    """Return the refusal of a method for a format that holds trits only."""
    return TernError(
        f"format must be merged, the only one for method {method}, whose weights are not ternary, "
        f"not {form}"
    )


def convert_prepared(
    model: nn.Module, *, packing: str, progress: Progress = silent
) -> tuple[dict[str, TernaryMatrix], list[LayerReport]]:
    """Return the matrices of a prepared model's layers, as their quantisers fit the weights."""
    layers = list(quantized_linears(model))
    matrices, reports = {}, []
    with progress("packing layers", len(layers)) as advance:
        for name, linear, quantizer in layers:
            weight = latent_weight(linear).detach()
            matrices[name], report = _matrix(name, weight, quantizer.fit(weight), packing)
            reports.append(report)
            advance(1)
    return matrices, reports


def _matrix(
    name: str, weight: Tensor, fit: TernaryFit, packing: str
) -> tuple[TernaryMatrix, LayerReport]:
    """Pack what was fitted to a weight, and report it."""
    matrix = TernaryMatrix.from_digits(
        fit.digits.numpy(),
        fit.scale.numpy(),
        fit.shift.numpy(),
        group_size=fit.group_size,
        packing=packing,
        name=name,
    )
    zeros = (fit.trits == 0).float().mean().item()
    error = fit.relative_error(weight)
    return matrix, LayerReport(name, matrix.shape, matrix.bits_per_weight, zeros, error)


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
            kept[name] = _raw(tensor)
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


def versions() -> dict[str, str]:
    """Return what wrote an exported model."""
    return {
        "tern_hw": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def tokenizer_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, bytes]:
    """Return a tokenizer's files by name, as transformers saves and reads them."""
    with tempfile.TemporaryDirectory(prefix="tern-tokenizer-") as scratch:
        with quiet():
            tokenizer.save_pretrained(scratch)
        files = sorted(path for path in Path(scratch).iterdir() if path.is_file())
        return {path.name: path.read_bytes() for path in files}


def _raw(tensor: Tensor) -> RawTensor:
    """Return a tensor's bytes under its type's name, without a copy where it is contiguous."""
    data: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return RawTensor(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), data)
