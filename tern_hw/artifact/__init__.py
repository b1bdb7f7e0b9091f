"""The packed model on disk: safetensors and a config with a checksum for every tensor."""

from tern_hw.artifact.manifest import ArtifactInfo, LayerInfo, TensorInfo
from tern_hw.artifact.store import Artifact, check_output, load_artifact, save_artifact
from tern_hw.artifact.tensors import RawTensor

__all__ = [
    "Artifact",
    "ArtifactInfo",
    "LayerInfo",
    "RawTensor",
    "TensorInfo",
    "check_output",
    "load_artifact",
    "save_artifact",
]
