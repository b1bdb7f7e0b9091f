"""A layer of a model on disk: ternary out of an artifact, and as it was before."""

from pathlib import Path

import numpy as np

from tern_hw.activations import open_activations
from tern_hw.artifact import load_artifact
from tern_hw.artifact.tensors import TensorFile
from tern_hw.errors import TernError
from tern_hw.gates.layer import Layer

__all__ = ["real_layer"]


def real_layer(model: str, name: str, *, activations: str, weights: str) -> Layer:
    """Read a layer, its weights before they became ternary, and what enters it.

    Parameters
    ----------
    model
        Folder of an artifact.
    name
        Of one of its layers.
    activations
        A .npy or .safetensors file, as `tern_hw.activations` reads it.
    weights
        A .safetensors file with the tensor `<name>.weight`.

    Raises
    ------
    TernError
        If something is missing or does not fit together.
    """
    matrix = load_artifact(model).layer(name)
    teacher = TensorFile(Path(weights))
    tensor = f"{name}.weight"
    if tensor not in teacher.names():
        raise TernError(f"{weights} must have a tensor {tensor!r}")
    tokens = open_activations(activations).of(name, matrix.in_features)
    return Layer(
        matrix=matrix,
        weight=teacher.raw(tensor).array().astype(np.float16),
        tokens=tokens.astype(np.float32),
        origin=name,
    )
