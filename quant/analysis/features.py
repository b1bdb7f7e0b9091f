"""The features that distillation compares: what each block of a model hands on, token by token."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.analysis.models import block_modules
from quant.progress import Progress, silent
from tern_hw.errors import TernError

__all__ = ["block_features", "text_windows", "window_features"]

#: Tokens of a window, where the model's context allows.
WINDOW = 256


def text_windows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    windows: int,
    tokens: int | None = None,
) -> Tensor:
    """Cut the start of a text into windows that do not overlap, int64 [windows, tokens].

    Parameters
    ----------
    model, tokenizer
        Special tokens are left out.
    text : str
    windows : int
        How many at most; as many as the text fills.
    tokens : int, optional
        Tokens of a window; 256, or the model's context where that is shorter.

    Raises
    ------
    TernError
        If the text does not fill one window, or a window exceeds the model's context.
    """
    context = getattr(model.config, "max_position_embeddings", None) or WINDOW
    length = min(WINDOW, context) if tokens is None else tokens
    if windows < 1:
        raise TernError(f"--windows must be at least 1, not {windows}")
    if not 2 <= length <= context:
        raise TernError(
            f"--tokens must be from 2 to the model's context of {context}, not {length}"
        )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False).input_ids[0]
    count = min(windows, len(ids) // length)
    if not count:
        raise TernError(f"text must have at least {length} tokens, not {len(ids)}")
    ids = ids[: count * length].long()
    vocabulary = model.get_input_embeddings().num_embeddings
    if int(ids.max()) >= vocabulary:
        raise TernError(
            f"tokenizer must give ids below {vocabulary}, as the model has, not {int(ids.max())}"
        )
    return ids.reshape(count, length)


@torch.no_grad()
def block_features(model: PreTrainedModel, ids: Tensor) -> list[Tensor]:
    """Run a model over tokens and return what each block hands on to the next.

    Parameters
    ----------
    model : PreTrainedModel
    ids : int64 [windows, tokens]

    Returns
    -------
    list of float32 [windows, tokens, D]
        The residual stream after each block: before the final norm, after the last one.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor]) -> None:
        seen.append((output if isinstance(output, Tensor) else output[0]).detach().float())

    blocks = block_modules(model)
    handles = [block.register_forward_hook(keep) for block in blocks.values()]
    try:
        model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    for name, feature in zip(blocks, seen, strict=True):
        if not bool(feature.isfinite().all()):
            raise TernError(f"features of {name} must be finite, not NaN or infinite")
    return seen


def window_features(
    model: PreTrainedModel, ids: Tensor, progress: Progress = silent
) -> list[Tensor]:
    """Return `block_features` of many windows, run one at a time."""
    parts = []
    with progress("reading the text", len(ids)) as advance:
        for window in ids:
            parts.append(block_features(model, window[None]))
            advance(1)
    return [torch.cat(each) for each in zip(*parts, strict=True)]
