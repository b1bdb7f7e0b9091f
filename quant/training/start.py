"""Start training from an artifact's levels: those of a training-free method, or of an earlier run.

A student that begins with levels fitted to activations is ahead of one that begins with levels
fitted to weights by as much as hundreds of steps bring.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quant.methods import quantized_linears
from quant.methods.base import latent_weight
from quant.methods.dlt import Codes, DltQuantizer, latent_for
from quant.models.opening import is_artifact
from quant.ternary import TernaryFit
from tern_hw.artifact import Artifact, load_artifact
from tern_hw.errors import TernError

__all__ = ["begin_from", "describe_start", "open_start"]


def open_start(path: Path) -> Artifact:
    """Open the artifact that a training starts from.

    Raises
    ------
    TernError
        If it is no artifact, or a damaged one.
    """
    if not is_artifact(path):
        raise TernError(
            f"start must be the folder of a ternary artifact, as python -m quant.export writes it, "
            f"not {path}"
        )
    return load_artifact(path)


def describe_start(artifact: Artifact) -> dict[str, Any]:
    """Return what a run records of its start: a checksum of the tensors, and how it was made."""
    checksums = {name: tensor.sha256 for name, tensor in artifact.info.tensors.items()}
    digest = hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()
    made = artifact.info.metadata
    return {
        "sha256": digest,
        **{name: made[name] for name in ("method", "options", "training") if name in made},
    }


@torch.no_grad()
def begin_from(student: nn.Module, artifact: Artifact) -> None:
    """Give a prepared student an artifact's trits, scales and shifts, to the bit.

    Parameters
    ----------
    student : nn.Module
        Prepared by `dlt` with nearest codes. Its latent weights move as far as the trits ask.
    artifact : Artifact
        Of the same layers in groups of the same size; without shifts where the student has none.

    Raises
    ------
    TernError
        If the student cannot hold those levels.
    """
    layers = list(quantized_linears(student))
    missing = [name for name, _, _ in layers if name not in artifact.layers]
    if missing or len(layers) != len(artifact.layers):
        wrong = missing[0] if missing else f"{len(artifact.layers)} of them"
        raise TernError(
            f"start {artifact.path} must have the student's {len(layers)} layers, "
            f"not {'none named ' if missing else ''}{wrong}"
        )
    for name, linear, quantizer in layers:
        if not isinstance(quantizer, DltQuantizer) or quantizer.config.codes is not Codes.NEAREST:
            raise TernError(
                "method must be dlt with codes=nearest to start from an artifact's levels, since "
                "by any other rule the weights alone decide the trits"
            )
        latent, fit = latent_weight(linear), TernaryFit.from_matrix(artifact.layer(name))
        if fit.trits.shape != latent.shape or fit.group_size != quantizer.config.group_size:
            raise TernError(
                f"start's layer {name} must have shape {tuple(latent.shape)} and group size "
                f"{quantizer.config.group_size}, not {tuple(fit.trits.shape)} and {fit.group_size}"
            )
        if not quantizer.config.shift and bool(fit.shift.any()):
            raise TernError(f"start's layer {name} must have no shift for a student without shifts")
        quantizer.scale.copy_(fit.scale.float())
        quantizer.shift.copy_(fit.shift.float())
        latent.copy_(latent_for(latent, fit))
