"""A prepared LLaMA as a GGUF file: ternary layers as TQ1_0 or TQ2_0, every other tensor as it was.

The file is written by the format's own package, `gguf`, and so are the ternary blocks: 256 weights
along K with one binary16 scale, and no shift.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from quant.exports.artifact import making
from quant.exports.convert import LayerReport, check_ternary
from quant.exports.gguf_tokens import add_tokenizer
from quant.exports.outputs import check_gguf
from quant.methods import quantized_linears
from quant.methods.base import latent_weight
from quant.models.prepared import Prepared, plain_state
from quant.progress import Progress, silent
from quant.ternary import TernaryFit
from quant.versions import versions
from tern_hw.errors import TernError

__all__ = ["GGUF_TYPES", "GgufReport", "export_gguf", "ternary_blocks"]

#: The ternary types: 54 and 66 bytes for 256 weights.
GGUF_TYPES: Final = {
    "tq1_0": gguf.GGMLQuantizationType.TQ1_0,
    "tq2_0": gguf.GGMLQuantizationType.TQ2_0,
}
#: What the file says it mostly is.
FILE_TYPES: Final = {
    "tq1_0": gguf.LlamaFileType.MOSTLY_TQ1_0,
    "tq2_0": gguf.LlamaFileType.MOSTLY_TQ2_0,
}
#: Types for the other matrices, by the names that `quant.exports.merge` gives them.
OTHER_TYPES: Final = {
    "fp32": gguf.GGMLQuantizationType.F32,
    "fp16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
}
#: Weights of a ternary block.
BLOCK: Final = 256


@dataclass(frozen=True)
class GgufReport:
    """What a GGUF file was made of."""

    layers: list[LayerReport]
    #: The other tensors, by their names in the model.
    kept: list[str]
    #: Tensors that are another one's, by name.
    tied: dict[str, str]
    #: Name of the file's pre-tokenizer; None where GGUF has none for the tokenizer.
    pre_tokenizer: str | None


def export_gguf(
    prepared: Prepared,
    output: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    kind: str = "tq1_0",
    dtype: str = "fp32",
    overwrite: bool = False,
    progress: Progress = silent,
) -> GgufReport:
    """Write a prepared LLaMA as a GGUF file.

    Parameters
    ----------
    prepared : Prepared
        Of a ternary method without a shift; its model is not changed.
    output : Path
        The file, which ends in .gguf; appears only when it is whole.
    tokenizer : PreTrainedTokenizerBase
        Byte-level BPE.
    kind : str
        A key of `GGUF_TYPES`, for the quantised layers.
    dtype : str
        A key of `OTHER_TYPES`, for the other matrices; norms are always float32.
    overwrite : bool
        Replace a GGUF file.
    progress : Progress
        Counts the tensors.

    Raises
    ------
    TernError
        If the model is not a plain LLaMA, a layer's levels are not ones that the type holds, the
        tokenizer is of another kind, or the output exists or cannot be written.
    """
    check_gguf(output, overwrite=overwrite)
    check_ternary(prepared, "gguf")
    config = prepared.model.config
    _check_llama(config)
    writer = gguf.GGUFWriter(None, "llama")
    _add_config(writer, config, prepared, kind)
    pre_tokenizer = add_tokenizer(writer, tokenizer, config)
    report = GgufReport(*_add_tensors(writer, prepared, kind, dtype, progress), pre_tokenizer)
    with _fresh_file(output) as path:
        try:
            writer.write_header_to_file(path)
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
    return report


def ternary_blocks(fit: TernaryFit, kind: str, name: str) -> NDArray[np.uint8]:
    """Return a layer's bytes in a ternary type, ``[N, K / 256 * block bytes]``.

    Raises
    ------
    TernError
        If the layer has a shift, K is no multiple of 256, or a block has more than one scale.

    Notes
    -----
    What `gguf` reads back equals the fit's dequantised weights to the bit, but that a zero is +0.
    """
    label, k = kind.upper(), fit.trits.shape[1]
    if bool((fit.shift != 0).any()):
        row, group = fit.shift.nonzero()[0].tolist()
        raise TernError(
            f"{name} must have no shift in GGUF's {label}, which holds a scale alone, not one of "
            f"{float(fit.shift[row, group]):g} (row {row}, group {group}); --format merged holds "
            "it, and a method without a shift (dlt: --set shift=off) needs none"
        )
    if k % BLOCK:
        raise TernError(
            f"{name} must have a multiple of {BLOCK} inputs, the block of GGUF's {label}, not {k}; "
            "--format merged holds any number"
        )
    values = fit.dequantize().numpy() + np.float32(0)  # -0 becomes +0
    _check_scales(values, fit, label, name)
    packed = gguf.quantize(values, GGUF_TYPES[kind])
    back = gguf.dequantize(packed, GGUF_TYPES[kind])
    if not np.array_equal(back.view(np.uint32), values.view(np.uint32)):
        raise RuntimeError(f"{name} does not read back from {label} as it was written")
    return packed


def _check_scales(values: NDArray[np.float32], fit: TernaryFit, label: str, name: str) -> None:
    """Refuse a block whose levels that are not 0 are of more than one magnitude."""
    blocks = np.abs(values).reshape(len(values), -1, BLOCK)
    high = blocks.max(-1)
    low = np.where(blocks > 0, blocks, np.inf).min(-1)
    if (bad := np.argwhere((high > 0) & (low != high))).size:
        row, block = bad[0]
        raise TernError(
            f"{name} must have one scale for each {BLOCK} inputs in GGUF's {label}, not "
            f"{low[row, block]:g} and {high[row, block]:g} (row {row}, block {block}) as groups of "
            f'{fit.group_size} have; group_size must be "row" or a multiple of {BLOCK}'
        )


def _add_tensors(
    writer: gguf.GGUFWriter, prepared: Prepared, kind: str, dtype: str, progress: Progress
) -> tuple[list[LayerReport], list[str], dict[str, str]]:
    """Give the writer every tensor; returns the reports, the other tensors' names, and the ties."""
    model = prepared.model
    layers = {f"{name}.weight": (name, pair, q) for name, pair, q in quantized_linears(model)}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    state = plain_state(model.state_dict())
    reports, kept = [], []
    with progress("packing tensors", len(state)) as advance:
        for name, tensor in state.items():
            known = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if known is None:
                raise TernError(f"tensor must be one that GGUF's llama has, not {name}")
            order = _rows(name, tensor, model.config)
            if name in layers:
                layer, linear, quantizer = layers[name]
                weight = latent_weight(linear).detach()
                fit = quantizer.fit(weight)
                packed = ternary_blocks(fit, kind, layer)
                writer.add_tensor(known, packed[order], raw_dtype=GGUF_TYPES[kind])
                reports.append(_report(layer, weight, fit, packed))
            else:
                _add_other(writer, known, name, tensor, order, dtype)
                kept.append(name)
            advance(1)
    tied = {} if "lm_head.weight" in state else {"lm_head.weight": "model.embed_tokens.weight"}
    return reports, kept, tied


def _report(name: str, weight: Tensor, fit: TernaryFit, packed: NDArray[np.uint8]) -> LayerReport:
    zeros = (fit.trits == 0).float().mean().item()
    bits = 8 * packed.nbytes / weight.numel()
    return LayerReport(name, tuple(weight.shape), bits, zeros, fit.relative_error(weight))


def _add_other(
    writer: gguf.GGUFWriter,
    known: str,
    name: str,
    tensor: Tensor,
    order: NDArray[np.int64],
    dtype: str,
) -> None:
    kind = OTHER_TYPES[dtype] if tensor.ndim > 1 else gguf.GGMLQuantizationType.F32
    exact = tensor.detach().float().numpy()[order]
    with np.errstate(over="ignore"):
        stored = gguf.quantize(exact, kind)
    if not np.isfinite(gguf.dequantize(stored, kind)).all():
        raise TernError(f"--dtype must be one that holds {name}, not {dtype}")
    writer.add_tensor(known, stored, raw_dtype=kind)


def _rows(name: str, tensor: Tensor, config: PreTrainedConfig) -> NDArray[np.int64]:
    """Return the order of a tensor's rows in GGUF: in q and k, a head's two halves interleaved."""
    rows = np.arange(len(tensor))
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for part, count in heads.items():
        if f".{part}." in name:
            # The file's rotary embedding turns neighbours, transformers' a half against the other.
            return rows.reshape(count, 2, -1).swapaxes(1, 2).ravel()
    return rows


def _check_llama(config: PreTrainedConfig) -> None:
    """Refuse what the file would hold, but its readers would take for something else."""
    if config.model_type != "llama":
        raise TernError(
            f"model must be a LLaMA to become GGUF here, not {config.model_type}; --format merged "
            "takes every architecture"
        )
    rope = config.rope_parameters.get("rope_type", "default")
    rules = {
        "hidden_act": (config.hidden_act, "silu"),
        "attention_bias": (config.attention_bias, False),
        "mlp_bias": (config.mlp_bias, False),
        "rope_type": (rope, "default"),
    }
    for name, (found, wanted) in rules.items():
        if found != wanted:
            raise TernError(f"{name} of a LLaMA must be {wanted} to become GGUF here, not {found}")


def _add_config(
    writer: gguf.GGUFWriter, config: PreTrainedConfig, prepared: Prepared, kind: str
) -> None:
    """Write the model's shape, and what made it."""
    head = config.head_dim
    writer.add_name(prepared.origin)
    made: dict[str, Any] = making(prepared.method.name, prepared.config, prepared.training)
    writer.add_description(f"ternary weights by {made['method']}, tern-hw {versions()['tern_hw']}")
    writer.add_string("tern_hw.making", json.dumps({**made, "versions": versions()}))
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_vocab_size(config.vocab_size)


@contextlib.contextmanager
def _fresh_file(output: Path) -> Iterator[Path]:
    """Give a path to write to, and move the file to its place when the block ends well."""
    target = Path(os.path.realpath(output))
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            path = Path(scratch) / target.name
            yield path
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.replace(target)
    except OSError as error:
        # numpy, which writes the tensors, tells neither the error's number nor the file.
        reason = error.strerror or error
        raise TernError(f"output must be writable, not {output} ({reason})") from None
