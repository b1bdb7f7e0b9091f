"""Turn a model's linear layers into ternary matrices, and the model into an artifact."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.exports.artifact import (
    POST_TRAINING,
    kept_tensors,
    making,
    tokenizer_files,
    write_artifact,
)
from quant.methods import MethodConfig, quantized_linears
from quant.methods.base import latent_weight
from quant.models.linears import block_linears, check_unshared, select_linears
from quant.models.prepared import Prepared
from quant.progress import Progress, silent
from quant.ternary import TernaryFit, ternarize
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
    "not_ternary",
]


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
