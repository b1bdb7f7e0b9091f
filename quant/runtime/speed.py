"""Where a token's time goes, and how fast the same model is in PyTorch."""

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from quant.progress import Progress, silent
from quant.runtime.linear import TernaryLinear

__all__ = ["decode_speeds", "median_ratio", "split_of_time"]


def decode_speeds(
    models: Mapping[str, PreTrainedModel],
    read: Mapping[str, Tensor],
    tokens: int,
    *,
    rounds: int = 3,
    progress: Progress = silent,
) -> dict[str, list[float]]:
    """Return the tokens a second of each model in each round; they take turns.

    Parameters
    ----------
    models : mapping of name to PreTrainedModel
    read : mapping
        The prompt's tokens, as a tokenizer returns them.
    tokens : int
        New tokens, two or more; the first, which reads the prompt, is not timed.
    rounds : int
    progress : Progress
    """
    found: dict[str, list[float]] = {name: [] for name in models}
    with progress("decoding in turns", (rounds + 1) * len(models)) as advance:
        for turn in range(rounds + 1):
            for name, model in models.items():
                speed = _decode(model, read, tokens)
                if turn:  # the first is for the caches
                    found[name].append(speed)
                advance(1)
    return found


def _decode(model: PreTrainedModel, read: Mapping[str, Tensor], tokens: int) -> float:
    clock = _Ticks()
    _generate(model, read, tokens, streamer=clock)
    return (len(clock.times) - 2) / (clock.times[-1] - clock.times[1])


def _generate(
    model: PreTrainedModel, read: Mapping[str, Tensor], tokens: int, **options: Any
) -> None:
    """Generate so many tokens, the likeliest each."""
    count = {"max_new_tokens": tokens, "min_new_tokens": tokens}
    with torch.inference_mode():
        model.generate(**read, **count, do_sample=False, pad_token_id=0, **options)


class _Ticks:
    """Notes when tokens come; the first call is the prompt's."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing more comes."""


def split_of_time(
    model: PreTrainedModel, read: Mapping[str, Tensor], tokens: int, *, rounds: int = 3
) -> dict[str, float]:
    """Return the milliseconds a token spends in each kind of module, each without those inside it.

    Parameters
    ----------
    model : PreTrainedModel
    read : mapping
        The prompt's tokens.
    tokens : int
        New tokens.
    rounds : int
        The median round counts.

    Returns
    -------
    dict
        "ternary layers", "head", "attention", "other modules", and "generation" around them.
        The clocks themselves take a few microseconds a module.
    """
    rows = []
    for _ in range(rounds):
        with _clocked(model) as spent:
            start = time.perf_counter()
            _generate(model, read, tokens)
            whole = time.perf_counter() - start
        spent["generation"] = whole - sum(spent.values())
        rows.append({name: 1e3 * seconds / tokens for name, seconds in spent.items()})
    rows.sort(key=lambda row: sum(row.values()))
    return rows[len(rows) // 2]


@contextmanager
def _clocked(model: PreTrainedModel) -> Iterator[dict[str, float]]:
    """Take the time of modules as they run, each without those that it calls."""
    spent = dict.fromkeys(("ternary layers", "head", "attention", "other modules"), 0.0)
    head = model.get_output_embeddings()
    #: Of each module that runs: when it began, and what the modules inside took.
    running: list[list[float]] = []

    def begin(module: nn.Module, inputs: Any) -> None:
        running.append([time.perf_counter(), 0.0])

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        start, inside = running.pop()
        whole = time.perf_counter() - start
        spent[_kind(module, head)] += whole - inside
        if running:
            running[-1][1] += whole

    handles = []
    for module in model.modules():
        handles += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def _kind(module: nn.Module, head: nn.Module) -> str:
    if isinstance(module, TernaryLinear):
        return "ternary layers"
    if module is head:
        return "head"
    return "attention" if type(module).__name__.endswith("Attention") else "other modules"


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Return how many times as fast ours is: the median over rounds."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
