"""Capture what really enters linear layers while the model reads a text."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.models.linears import named_linears
from quant.text.loading import tokenize
from tern_hw.errors import TernError

__all__ = ["capture_all_inputs", "capture_inputs"]


class _CapturedError(Exception):
    """Ends the forward pass once all inputs that were asked for are there."""


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
    return capture_all_inputs(model, tokenizer, [layer], text, tokens=tokens)[layer]


def capture_all_inputs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layers: Sequence[str],
    text: str | Tensor,
    *,
    tokens: int,
) -> dict[str, NDArray[np.float32]]:
    """Run the model once over the first tokens of a text and return the inputs of many layers.

    Parameters
    ----------
    model, tokenizer, tokens
        As `capture_inputs` takes them.
    layers : sequence of str
        Names of linear layers in the blocks.
    text : str or int64 [T]
        Or its token ids, of which the first count.

    Returns
    -------
    dict of str to float32 [tokens, K]
        By name, in the order asked for.

    Raises
    ------
    TernError
        As `capture_inputs`.
    """
    linears = named_linears(model, layers)
    captured = _run(model, linears, _window(model, tokenizer, text, tokens))
    for name in linears:
        if name not in captured:
            raise TernError(
                f"layer must take part in reading the text, not stay idle as {name} does"
            )
    return {
        name: captured[name].reshape(-1, linear.in_features).float().cpu().numpy()
        for name, linear in linears.items()
    }


def _run(
    model: PreTrainedModel, linears: Mapping[str, nn.Linear], ids: Tensor
) -> dict[str, Tensor]:
    """Return the first input of each layer in a forward pass, which ends once all are there."""
    captured: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            captured.setdefault(name, inputs[0].detach())
            if len(captured) == len(linears):
                raise _CapturedError

        return keep

    handles = [linear.register_forward_pre_hook(hook(name)) for name, linear in linears.items()]
    try:
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
    except _CapturedError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return captured


def _window(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str | Tensor, tokens: int
) -> Tensor:
    """Return the text's first tokens, int64 [1, tokens]."""
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise TernError(f"tokens must be a positive integer, not {tokens!r}")
    context = getattr(model.config, "max_position_embeddings", tokens)
    if tokens > context:
        raise TernError(f"tokens must be at most the model's context of {context}, not {tokens}")
    ids = (tokenize(text, tokenizer) if isinstance(text, str) else text)[None, :tokens]
    if ids.shape[1] < tokens:
        raise TernError(f"text must have at least {tokens} tokens, not {ids.shape[1]}")
    vocabulary, highest = model.get_input_embeddings().num_embeddings, int(ids.max())
    if highest >= vocabulary:
        raise TernError(
            f"tokenizer must give ids below {vocabulary}, as the model has, not {highest}"
        )
    return ids.to(model.device)
