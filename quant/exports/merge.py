"""A prepared model as a plain Hugging Face folder: the quantised weights merged into the model.

transformers loads the folder as it does any other. What made it stands in `tern_hw.json`, which
transformers does not read.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.exports.artifact import making
from quant.exports.convert import LayerReport
from quant.exports.outputs import MERGED_FILE, MERGED_FORMAT, check_merged
from quant.methods import Quantizer, convert, quantized_linears
from quant.methods.base import check_finite, latent_weight
from quant.models.checkpoints import quiet
from quant.models.prepared import Prepared
from quant.progress import Progress, silent
from quant.versions import versions
from tern_hw.errors import TernError
from tern_hw.files import atomic_directory

__all__ = ["DTYPES", "MergeReport", "export_merged"]

#: Types that a merged model can be stored in, by name.
DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class MergeReport:
    """What merging made of a model."""

    layers: list[LayerReport]
    #: Names of the other tensors.
    kept: list[str]
    #: Tensors that are another one's, by name.
    tied: dict[str, str]
    #: Share of the quantised weights that the stored type does not hold exactly, in [0, 1].
    rounded: float
    #: That type, a key of `DTYPES`.
    dtype: str


def export_merged(
    prepared: Prepared,
    output: Path,
    *,
    dtype: str = "fp32",
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> MergeReport:
    """Write a prepared model as a Hugging Face folder of plain weights.

    Parameters
    ----------
    prepared : Prepared
        Of any method. Its model is a plain one of the stored type afterwards: a second copy of
        all weights would need the memory of one.
    output : Path
        The folder; appears only when it is whole.
    dtype : str
        A key of `DTYPES`. fp32 holds every level exactly, and so does fp16 where no shift is added
        to the scale: ``alpha * T`` is a binary16, ``alpha * T + gamma`` as a rule is none.
    tokenizer : PreTrainedTokenizerBase, optional
        Written beside the model.
    overwrite : bool
        Replace a folder that this function wrote.
    progress : Progress
        Counts the layers.

    Raises
    ------
    TernError
        If a weight is not finite, or is not in the stored type, or the output exists or cannot be
        written.
    """
    check_merged(output, overwrite=overwrite)
    model = prepared.model
    layers, rounded = _measure(model, DTYPES[dtype], progress)
    convert(model)
    _cast(model, DTYPES[dtype])
    kept, tied = _others(model, {layer.name for layer in layers})
    description = {
        "format": MERGED_FORMAT,
        **making(prepared.method.name, prepared.config, prepared.training),
        "origin": prepared.origin,
        "dtype": dtype,
        "versions": versions(),
    }
    with atomic_directory(output, overwrite=overwrite) as folder, _full_disk(output):
        with quiet():
            model.save_pretrained(folder)
            if tokenizer is not None:
                tokenizer.save_pretrained(folder)
        (folder / MERGED_FILE).write_text(json.dumps(description, indent=2) + "\n")
    return MergeReport(layers, kept, tied, rounded, dtype)


@torch.no_grad()
def _measure(
    model: nn.Module, dtype: torch.dtype, progress: Progress
) -> tuple[list[LayerReport], float]:
    """Report each layer as it will be stored, and the share of weights that storing rounds."""
    layers = list(quantized_linears(model))
    reports, rounded, total = [], 0, 0
    with progress("merging layers", len(layers)) as advance:
        for name, linear, quantizer in layers:
            latent, exact = latent_weight(linear), linear.weight
            check_finite(exact, f"{name}.weight")
            stored = exact.to(dtype)
            rounded += int((stored.float() != exact.float()).sum())
            total += exact.numel()
            reports.append(_report(name, latent, stored, quantizer))
            advance(1)
    return reports, rounded / max(total, 1)


def _report(name: str, latent: Tensor, stored: Tensor, quantizer: Quantizer) -> LayerReport:
    codes = quantizer.fit(latent).trits if quantizer.ternary else stored
    wanted = latent.double()
    norm = float(wanted.square().sum())
    error = float((wanted - stored.double()).square().sum()) / norm if norm else 0.0
    bits = 8.0 * stored.element_size()
    shape = (stored.shape[0], stored.shape[1])
    return LayerReport(name, shape, bits, (codes == 0).float().mean().item(), error)


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give all weights one type; refuse values beyond its range."""
    model.to(dtype)
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise TernError(
                f"--dtype must be one that holds {name}, whose largest value is beyond it, "
                f"not {str(dtype).removeprefix('torch.')}"
            )


def _others(model: nn.Module, layers: set[str]) -> tuple[list[str], dict[str, str]]:
    """Return the names of the tensors that were not quantised, and of those that are tied."""
    kept, tied = [], {}
    names: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in model.state_dict().items():
        first = names.setdefault((tensor.data_ptr(), tensor.shape), name)
        if first != name and tensor.numel():
            tied[name] = first
        elif name.removesuffix(".weight") not in layers:
            kept.append(name)
    return kept, tied


@contextlib.contextmanager
def _full_disk(output: Path) -> Iterator[None]:
    """Tell in one sentence that safetensors could not write, which it reports as its own error."""
    try:
        yield
    except SafetensorError as error:
        raise TernError(f"output must be writable, not {output} ({error})") from None
