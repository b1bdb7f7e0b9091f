"""What a model can read: how many tokens at once, and which."""

from torch import Tensor, nn

from tern_hw.errors import TernError

__all__ = ["check_vocabulary", "check_window", "context_of"]


def context_of(model: nn.Module) -> int:
    """Return the most tokens that a model reads at once; a great many where it does not say."""
    context = getattr(model.config, "max_position_embeddings", None)
    return context if isinstance(context, int) else 1 << 20


def check_window(model: nn.Module, window: int) -> None:
    """Refuse a window that does not fit the model's context, or predicts nothing."""
    context = context_of(model)
    if isinstance(window, bool) or not isinstance(window, int) or window < 2:
        raise TernError(f"window must be an integer from 2, not {window!r}")
    if window > context:
        raise TernError(f"window must be at most the model's context of {context}, not {window}")


def check_vocabulary(model: nn.Module, tokens: Tensor) -> None:
    """Refuse tokens that the model has no embedding of: another tokenizer's, as a rule."""
    size = model.get_input_embeddings().num_embeddings
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= size:
        wrong = low if low < 0 else high
        raise TernError(f"tokens must be from 0 to {size - 1}, as the model has them, not {wrong}")
