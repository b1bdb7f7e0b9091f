"""Perplexity by the protocol of GPTQ's evaluation, windows and counts stated."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedTokenizerBase

from quant.models.limits import check_vocabulary, check_window, context_of
from quant.progress import Progress, silent
from quant.text.loading import windows
from tern_hw.errors import TernError

__all__ = ["DEFAULT_WINDOW", "Perplexity", "bos_token", "context_of", "perplexity"]

#: Tokens of a window in the papers' tables; at most the model's context.
DEFAULT_WINDOW: Final = 2048
#: Positions whose logits are brought to float32 at a time: 49152 words take 50 MB.
CHUNK: Final = 256


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts a text, and what exactly was counted."""

    #: Mean negative log-likelihood of a predicted token, nats.
    nll: float
    #: Tokens that were predicted; the mean is over these.
    predicted: int
    #: Tokens of the text that the windows hold, each once, with those that only give context.
    tokens: int
    windows: int
    #: Tokens of a window.
    window: int
    #: Tokens from one window's start to the next's.
    stride: int
    #: The token put before the text, if one was.
    bos: int | None

    @property
    def perplexity(self) -> float:
        """exp(nll); infinite where that is beyond float64."""
        try:
            return math.exp(self.nll)
        except OverflowError:
            return math.inf

    def bits_per_byte(self, byte_count: int) -> float:
        """Return the bits that a byte of text takes.

        Parameters
        ----------
        byte_count : int
            UTF-8 bytes of the text of `tokens`: every token counts with the mean nll, so the few
            without a prediction (each window's first) neither gain nor lose.
        """
        return self.nll / math.log(2) * self.tokens / byte_count


def perplexity(
    model: nn.Module,
    tokens: Tensor,
    *,
    window: int | None = None,
    stride: int | None = None,
    batch: int = 1,
    bos: int | None = None,
    progress: Progress = silent,
) -> Perplexity:
    """Measure a causal language model's perplexity on tokens.

    Parameters
    ----------
    model : nn.Module
        Of transformers; in whatever mode and type it is, it comes back so. A prepared model's
        weights are quantised once for all windows.
    tokens : int64 [T]
        A whole text, tokenised in one piece.
    window : int, optional
        Tokens of a window; 2048 or the model's context, whichever is less, where not given.
    stride : int, optional
        Tokens from one window's start to the next's; `window` where not given.
    batch : int
        Windows of one forward pass.
    bos : int, optional
        Token that is put before the text, once: so a tokenizer that adds it does it.
    progress : Progress
        Counts the windows.

    Returns
    -------
    Perplexity

    Raises
    ------
    TernError
        If the window is longer than the context or the text, a token is not in the vocabulary, or
        the model's logits are not finite.

    Notes
    -----
    GPTQ (arXiv:2210.17323) and all who compare with it: windows that do not overlap, the tail
    dropped, each window's tokens but the first predicted from those before them in the window, and
    ``exp`` of the mean over all. With a stride, a window predicts only what the window before it
    did not hold: its last `stride` tokens, with at least ``window - stride`` of context.
    """
    if bos is not None:
        tokens = torch.cat([tokens.new_tensor([bos]), tokens])
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise TernError(f"batch must be a positive integer, not {batch!r}")
    if window is None:
        window = min(DEFAULT_WINDOW, context_of(model))
    check_window(model, window)
    cut = windows(tokens, window, stride)
    step = window if stride is None else stride
    check_vocabulary(model, cut)
    total, predicted = 0.0, 0
    with _evaluating(model), progress("perplexity: windows", len(cut)) as advance:
        for first in range(0, len(cut), batch):
            ids = cut[first : first + batch]
            for i, losses in enumerate(_losses(model, ids)):
                # The first window predicts all it can; a later one what is new in it.
                new = losses if first + i == 0 else losses[-min(step, window - 1) :]
                if not bool(new.isfinite().all()):
                    raise TernError(f"logits must be finite, not so in window {first + i}")
                total += float(new.double().sum())
                predicted += len(new)
            advance(len(ids))
    covered = window + (len(cut) - 1) * step - (bos is not None)
    return Perplexity(total / predicted, predicted, covered, len(cut), window, step, bos)


def bos_token(tokenizer: PreTrainedTokenizerBase, mode: str) -> int | None:
    """Return the token to put before a text.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    mode : str
        "auto": the tokenizer's own beginning, if it is one that adds any; "yes" or "no".

    Raises
    ------
    TernError
        If it is "yes" and the tokenizer has no such token.
    """
    bos = tokenizer.bos_token_id
    if mode == "yes" and bos is None:
        raise TernError("--bos must be no or auto for a tokenizer without such a token, not yes")
    if mode == "auto" and bos is not None:
        return bos if tokenizer("a").input_ids[:1] == [bos] else None
    return bos if mode == "yes" else None


def _losses(model: nn.Module, ids: Tensor) -> Iterator[Tensor]:
    """Yield each window's negative log-likelihoods, float32 [window - 1], nats."""
    device = next(model.parameters()).device
    ids = ids.to(device)
    logits = model(input_ids=ids, use_cache=False).logits
    for row, wanted in zip(logits[:, :-1], ids[:, 1:], strict=True):
        chunks = zip(row.split(CHUNK), wanted.split(CHUNK), strict=True)
        yield torch.cat(
            [
                nn.functional.cross_entropy(part.float(), aim, reduction="none")
                for part, aim in chunks
            ]
        )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, without gradients, and quantise its weights once."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), parametrize.cached():
            yield
    finally:
        model.train(training)
