"""Capture what really enters a linear layer while the model reads a text."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.models.linears import named_linear
from tern_hw.errors import TernError

__all__ = ["capture_inputs"]


class _CapturedError(Exception):
    """Ends the forward pass once the layer's input is there."""


def capture_inputs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layer: str,
    text: str,
    *,
    tokens: int,
) -> NDArray[np.float32]:
    """Run the model over the first tokens of a text and return the inputs of one linear layer.

    Parameters
    ----------
    model : PreTrainedModel
    tokenizer : PreTrainedTokenizerBase
        The model's own; special tokens are left out.
    layer : str
        Name of a linear layer in the blocks, as "model.layers.0.mlp.gate_proj".
    text : str
    tokens : int
        How many; they form one window, so each sees those before it.

    Returns
    -------
    float32 [tokens, K]
        One row a token, K the layer's in_features (an expert may get fewer tokens).

    Raises
    ------
    TernError
        If there is no such layer, or the text or the model's context is shorter than that.
    """
    linear = named_linear(model, layer)
    ids = _window(model, tokenizer, text, tokens)
    captured: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        captured.append(inputs[0].detach())
        raise _CapturedError

    handle = linear.register_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
    except _CapturedError:
        pass
    finally:
        handle.remove()
    if not captured:
        raise TernError(f"layer must take part in reading the text, not stay idle as {layer} does")
    return captured[0].reshape(-1, linear.in_features).float().cpu().numpy()


def _window(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, tokens: int
) -> Tensor:
    """Return the text's first tokens, int64 [1, tokens]."""
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise TernError(f"tokens must be a positive integer, not {tokens!r}")
    context = getattr(model.config, "max_position_embeddings", tokens)
    if tokens > context:
        raise TernError(f"tokens must be at most the model's context of {context}, not {tokens}")
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[:, :tokens]
    if ids.shape[1] < tokens:
        raise TernError(f"text must have at least {tokens} tokens, not {ids.shape[1]}")
    vocabulary, highest = model.get_input_embeddings().num_embeddings, int(ids.max())
    if highest >= vocabulary:
        raise TernError(
            f"tokenizer must give ids below {vocabulary}, as the model has, not {highest}"
        )
    return ids.to(model.device)
