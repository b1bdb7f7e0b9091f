"""The versions that decide what a model on disk says: ours, and those of what wrote it."""

import torch
import transformers

from tern_hw import __version__

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """Return what wrote an exported model."""
    return {
        "tern_hw": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
