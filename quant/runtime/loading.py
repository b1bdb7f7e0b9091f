"""Open an artifact for inference: layers repacked once, into memory of their own."""

import os
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.models.opening import assemble_artifact, open_tokenizer
from quant.progress import Progress, silent
from quant.runtime.linear import TernaryLinear
from tern_hw.artifact import Artifact, load_artifact
from tern_hw.errors import TernError
from tern_hw.kernels import repack

__all__ = ["load"]


def load(
    path: str | os.PathLike[str],
    *,
    activation: str = "int8",
    packing: str = "2bit",
    threads: int | None = None,
    tokenizer: str | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Progress = silent,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a ternary artifact as a model of transformers that computes on packed trits.

    Parameters
    ----------
    path : path
        The artifact's folder. Nothing of it is needed or held once this returns.
    activation : str
        "int8" or "fp16", see `TernaryLinear`.
    packing : str
        "2bit" or "base3": how the layers lie in memory, see `tern_hw.kernels.repack`.
    threads : int, optional
        For the layers; None: as many as there are processors. PyTorch has a setting of its own.
    tokenizer : str, optional
        A model whose tokenizer to take; needed where the artifact keeps none.
    dtype : torch.dtype
        Of all that is not ternary.
    progress : Progress

    Returns
    -------
    model : PreTrainedModel
        In evaluation mode; `forward`, `generate` and caches as those of any model.
    tokenizer : PreTrainedTokenizerBase

    Raises
    ------
    TernError
        If it is no artifact, or damaged, or its model is not what its config describes.
    """
    artifact = load_artifact(path)
    words = open_tokenizer(tokenizer, Path(path), progress)
    # Of the right shape and without memory: nothing reads them.
    nothing = {
        f"{name}.weight": torch.zeros((), dtype=dtype).expand(layer.out_features, layer.in_features)
        for name, layer in artifact.info.layers.items()
    }
    model = assemble_artifact(artifact, nothing, dtype=dtype)
    with progress("repacking layers", len(artifact.layers)) as advance:
        for name in artifact.layers:
            _replace(model, name, artifact, packing, activation, threads)
            advance(1)
    _turn_head(model)
    return model.eval(), words


def _turn_head(model: PreTrainedModel) -> None:
    """Lay out the head's weight by inputs: a token's product with it then takes half the time.

    PyTorch reads a tall matrix row by row, with a sum for each, at 10 GB/s; turned, it adds up
    multiples of long rows at twice that. A tied embedding shares the memory, and gathers.
    """
    head = model.get_output_embeddings()
    if isinstance(head, nn.Linear) and head.weight.dtype is torch.float32:
        head.weight.data = head.weight.data.T.contiguous().T


def _replace(
    model: nn.Module,
    name: str,
    artifact: Artifact,
    packing: str,
    activation: str,
    threads: int | None,
) -> None:
    """Put a ternary layer in the place of a linear one."""
    linear = model.get_submodule(name)
    if not isinstance(linear, nn.Linear):
        raise TernError(f"{artifact.path}: layer {name} must be a linear layer of its model")
    matrix = repack(artifact.layer(name), packing)
    layer = TernaryLinear(matrix, linear.bias, activation=activation, threads=threads)
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)
