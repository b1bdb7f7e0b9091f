"""Open any model that can be evaluated: full precision, prepared, or a ternary artifact."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.methods import convert
from quant.models.checkpoints import build_model, load_skeleton, load_tokenizer
from quant.models.prepared import is_prepared, load_prepared
from quant.models.sources import find_source
from quant.models.tensors import torch_tensor
from quant.progress import Progress, silent
from quant.ternary import TernaryFit
from tern_hw.artifact import Artifact, load_artifact
from tern_hw.artifact.manifest import CONFIG_FILE, is_document
from tern_hw.errors import TernError

__all__ = [
    "OpenedModel",
    "artifact_model",
    "assemble_artifact",
    "is_artifact",
    "open_model",
    "open_tokenizer",
]


@dataclass(frozen=True)
class OpenedModel:
    """A model of transformers with plain weights, whatever it was on the disk."""

    #: In evaluation mode.
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    #: What the model is, in words.
    origin: str
    #: "full precision", "fake-quantised (dlt)", "artifact", ...
    kind: str


def open_model(
    name: str,
    *,
    tokenizer: str | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Progress = silent,
) -> OpenedModel:
    """Open a model by what a user calls it.

    Parameters
    ----------
    name : str
        A prepared folder, an artifact's folder, or whatever `find_source` finds.
    tokenizer : str, optional
        A model whose tokenizer to take; needed where an artifact keeps none.
    dtype : torch.dtype
        What the model computes in. Quantised weights are made in float32 and rounded after that.
    progress : Progress
        Shows what takes longer than a moment.

    Raises
    ------
    TernError
        If nothing is called that, or it is damaged; or no tokenizer can be had.
    """
    path = Path(name).expanduser()
    if is_prepared(path):
        prepared = load_prepared(path)
        words = open_tokenizer(tokenizer, path, progress)
        model, origin = prepared.model.float(), prepared.origin
        kind = f"fake-quantised ({prepared.method.name})"
        convert(model)
    elif is_artifact(path):
        artifact = load_artifact(path)
        words = open_tokenizer(tokenizer, path, progress)
        model, origin = artifact_model(artifact), str(artifact.info.metadata.get("origin", path))
        kind = "ternary artifact"
    else:
        source = find_source(name, progress)
        words = open_tokenizer(tokenizer, source.path, progress)
        model, origin, kind = source.model, source.origin, "full precision"
    return OpenedModel(model.to(dtype).eval(), words, origin, kind)


def is_artifact(folder: Path) -> bool:
    """Tell whether a folder holds a ternary artifact, of whatever version and state."""
    return (folder / CONFIG_FILE).is_file() and is_document(folder / CONFIG_FILE)


def open_tokenizer(
    name: str | None, beside: Path, progress: Progress = silent
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a named model, or the one that lies beside the weights."""
    if name is not None:
        return find_source(name, progress).tokenizer
    if is_artifact(beside) and not any(beside.glob("tokenizer*")):
        raise TernError(
            f"--tokenizer must name a model whose tokenizer to take: {beside} is an artifact "
            "without one"
        )
    return load_tokenizer(beside)


def artifact_model(artifact: Artifact) -> PreTrainedModel:
    """Build the model of an artifact in float32, its ternary layers dequantised.

    A dequantised weight is the fake-quantised one to the bit, so the logits are, too.

    Raises
    ------
    TernError
        If the artifact's tensors are not those of the model that its config describes.
    """
    weights = {
        f"{name}.weight": TernaryFit.from_matrix(artifact.layer(name)).dequantize()
        for name in artifact.layers
    }
    return assemble_artifact(artifact, weights, dtype=torch.float32)


def assemble_artifact(
    artifact: Artifact, weights: dict[str, Tensor], *, dtype: torch.dtype
) -> PreTrainedModel:
    """Build the model of an artifact from its ternary layers' weights, by tensor name, as given.

    Raises
    ------
    TernError
        If the artifact's tensors are not those of the model that its config describes.
    """
    skeleton = load_skeleton(artifact.path)
    state = {name: torch_tensor(artifact.tensor(name)) for name in artifact.tensors}
    state |= weights
    for name, other in _tied(artifact).items():
        state[name] = state[other]
    for name in state.keys() - skeleton.state_dict().keys():
        raise TernError(f"{artifact.path} must hold the tensors of its model, not {name}")
    return build_model(skeleton, state, artifact.path, dtype=dtype)


def _tied(artifact: Artifact) -> dict[str, str]:
    """Return the names of tensors that are another one's, and of that one."""
    tied: Any = artifact.info.metadata.get("tied", {})
    known = {*artifact.tensors, *(f"{name}.weight" for name in artifact.layers)}
    if not isinstance(tied, dict) or not known.issuperset(map(str, tied.values())):
        raise TernError(
            f"{artifact.path}: tied must name tensors of the artifact, not {tied!r:.80}"
        )
    return tied
