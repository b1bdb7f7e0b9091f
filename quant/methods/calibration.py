"""Walk a model block by block over calibration text, each block behind the quantised ones.

As GPTQ has it (arXiv:2210.17323, section 4): the windows enter the first block once; a block's
linear layers are quantised with the inputs they get there; then the quantised block makes the
next one's inputs. Activations are kept at one place of the model only.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from tern_hw.errors import TernError

__all__ = [
    "MIN_TOKENS",
    "Block",
    "Statistics",
    "check_windows",
    "input_statistics",
    "walk_blocks",
]

#: Fewest tokens of all windows together: below that the statistics say nothing.
MIN_TOKENS: Final = 32
#: A block's arguments beside its input: by position, and by name.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class _ReachedError(Exception):
    """Ends the forward pass where all that is wanted of it is there."""


@dataclass(frozen=True)
class Statistics:
    """What the inputs of one linear layer were over all calibration tokens."""

    #: Mean over the tokens of ``x^T x``, float64 [K, K].
    gram: Tensor
    #: Mean over the tokens of |x|, float64 [K].
    magnitude: Tensor
    tokens: int


@dataclass
class Block:
    """One block of the model, and what enters it."""

    name: str
    module: nn.Module
    #: Its linear layers that are to be quantised, by their full names.
    linears: dict[str, nn.Linear]
    #: The windows as they enter, [windows, tokens, width].
    inputs: Tensor
    arguments: Arguments

    def __call__(self, window: Tensor) -> Tensor:
        """Return what the block makes of inputs ``[1, tokens, width]``, of the same shape."""
        positional, named = self.arguments
        output = self.module(window, *positional, **named)
        return output[0] if isinstance(output, tuple) else output

    @torch.no_grad()
    def outputs(self, inputs: Tensor | None = None) -> Tensor:
        """Return what the block makes of its own inputs, or of others of their shape."""
        inputs = self.inputs if inputs is None else inputs
        return torch.cat([self(window) for window in inputs.split(1)])

    def statistics(self) -> dict[str, Statistics]:
        """Return the statistics of each linear layer's inputs.

        Raises
        ------
        TernError
            If a layer gets no input, or one that is not finite.
        """
        return input_statistics(self.linears, self.outputs)


def input_statistics(
    linears: dict[str, nn.Linear], run: Callable[[], object]
) -> dict[str, Statistics]:
    """Return the statistics of what enters linear layers while `run` computes with them.

    Raises
    ------
    TernError
        If a layer gets no input, or one that is not finite.
    """
    collector = _Collector()
    with collector.listening(linears):
        run()
    return {name: collector.statistics(name) for name in linears}


class _Sums:
    """Running sums over the tokens that enter a layer."""

    def __init__(self, inputs: Tensor) -> None:
        width = inputs.shape[-1]
        self.gram = torch.zeros(width, width, dtype=torch.float64, device=inputs.device)
        self.magnitude = torch.zeros(width, dtype=torch.float64, device=inputs.device)
        self.tokens = 0

    def add(self, inputs: Tensor) -> None:
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        self.gram += rows.T @ rows
        self.magnitude += rows.abs().sum(0)
        self.tokens += len(rows)


class _Collector:
    """Sums of all layers; those that read the same tensor, as q, k and v do, share theirs."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sums] = {}
        self._latest: Tensor | None = None
        self._owner = ""

    @contextlib.contextmanager
    def listening(self, linears: dict[str, nn.Linear]) -> Iterator[None]:
        handles = [
            linear.register_forward_pre_hook(self._hook(name)) for name, linear in linears.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._latest = None

    def statistics(self, name: str) -> Statistics:
        if name not in self._sums:
            raise TernError(
                f"layer must take part in reading the text, not stay idle as {name} does"
            )
        sums = self._sums[name]
        if not bool(sums.magnitude.isfinite().all()):
            channel = int((~sums.magnitude.isfinite()).nonzero()[0])
            raise TernError(
                f"inputs of {name} must be finite over the calibration text, not "
                f"{float(sums.magnitude[channel])} as channel {channel} is"
            )
        return Statistics(sums.gram / sums.tokens, sums.magnitude / sums.tokens, sums.tokens)

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0] is not self._latest:
                self._latest, self._owner = inputs[0], name
                self._sums.setdefault(name, _Sums(inputs[0])).add(inputs[0])
            else:
                self._sums[name] = self._sums[self._owner]

        return keep


def walk_blocks(
    model: nn.Module, linears: dict[str, nn.Linear], windows: Tensor
) -> Iterator[Block]:
    """Yield the model's blocks in order, up to the last with a layer to quantise.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers; in evaluation mode while the walk lasts.
    linears : dict of str to nn.Linear
        The layers to quantise. Whoever iterates does that to a block before asking for the next.
    windows : int64 [windows, tokens]
        Token ids that `check_windows` passed.

    Yields
    ------
    Block

    Raises
    ------
    TernError
        If the layers do not lie in one stack of blocks, or a block's arguments other than its
        input depend on the text.
    """
    blocks = _stack(model, linears)
    training = model.training
    model.eval()
    try:
        inputs, arguments = _enter(model, list(blocks.values()), windows)
        for i, (name, module) in enumerate(blocks.items()):
            own = {key: linear for key, linear in linears.items() if key.startswith(f"{name}.")}
            block = Block(name, module, own, inputs, arguments[i])
            yield block
            if i + 1 < len(blocks):
                inputs = block.outputs()
    finally:
        model.train(training)


def check_windows(model: nn.Module, windows: Tensor | None, name: str) -> Tensor:
    """Return calibration windows on the model's device, or refuse them for method `name`.

    Raises
    ------
    TernError
        If they are missing, not integer [windows, tokens], fewer than 32 tokens, longer than the
        model's context, or hold an id that the model does not have.
    """
    if windows is None:
        raise TernError(f"calibration must be token ids [windows, tokens] for {name}, not missing")
    integers = (torch.int64, torch.int32)
    if not isinstance(windows, Tensor) or windows.ndim != 2 or windows.dtype not in integers:
        kind = (
            f"{windows.dtype} {list(windows.shape)}".removeprefix("torch.")
            if isinstance(windows, Tensor)
            else type(windows).__name__
        )
        raise TernError(f"calibration must be token ids, int64 [windows, tokens], not {kind}")
    if windows.numel() < MIN_TOKENS:
        raise TernError(
            f"calibration must have at least {MIN_TOKENS} tokens, not {windows.numel()}"
        )
    _check_fit(model, windows)
    return windows.long().to(next(model.parameters()).device)


def _check_fit(model: Any, windows: Tensor) -> None:
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and windows.shape[1] > context:
        raise TernError(
            f"calibration windows must be at most the model's context of {context} tokens, "
            f"not {windows.shape[1]}"
        )
    vocabulary = model.get_input_embeddings().num_embeddings
    for bound in (int(windows.min()), int(windows.max())):
        if not 0 <= bound < vocabulary:
            raise TernError(
                f"calibration must hold ids from 0 to {vocabulary - 1}, as the model has, "
                f"not {bound}"
            )


def _stack(model: nn.Module, linears: dict[str, nn.Linear]) -> dict[str, nn.Module]:
    """Return the blocks by name, cut after the last that holds a layer to quantise."""
    for name, modules in model.named_modules():
        if not isinstance(modules, nn.ModuleList):
            continue
        if all(linear.startswith(f"{name}.") for linear in linears):
            used = {int(linear.removeprefix(f"{name}.").partition(".")[0]) for linear in linears}
            return {f"{name}.{i}": modules[i] for i in range(max(used) + 1)}
    kind = type(model).__name__
    raise TernError(f"layers must lie in one stack of blocks to be calibrated, not as {kind}'s do")


@torch.no_grad()
def _enter(
    model: nn.Module, blocks: list[nn.Module], windows: Tensor
) -> tuple[Tensor, list[Arguments]]:
    """Return what enters the first block, and each block's further arguments.

    The first window runs through to the last block, since blocks may get different arguments (a
    mask of its own where attention slides); the other windows end at the first block.
    """
    first, *others = windows.split(1)
    calls = _calls(model, blocks, first)
    inputs, arguments = [calls[0][0]], [given for _, given in calls]
    for window in others:
        ((hidden, given),) = _calls(model, blocks[:1], window)
        if not _same(given, arguments[0]):
            raise TernError(
                "model must give its blocks the same arguments for every window, not ones that "
                f"depend on the text as {type(model).__name__} does"
            )
        inputs.append(hidden)
    return torch.cat(inputs), arguments


def _calls(
    model: nn.Module, blocks: list[nn.Module], window: Tensor
) -> list[tuple[Tensor, Arguments]]:
    """Run a window until the last of the blocks is reached; return what each was called with."""
    calls: list[tuple[Tensor, Arguments]] = []

    def keep(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        named = dict(named)
        hidden, rest = (
            (positional[0], positional[1:]) if positional else (named.pop("hidden_states"), ())
        )
        # Only the first block's input is wanted; to keep the others' would hold them all.
        calls.append((hidden if not calls else hidden.new_empty(0), (rest, named)))
        if len(calls) == len(blocks):
            raise _ReachedError

    handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in blocks]
    try:
        with contextlib.suppress(_ReachedError):
            model(input_ids=window, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if len(calls) < len(blocks):
        raise TernError(
            f"model must call each of its blocks once, not {len(calls)} of {len(blocks)} as "
            f"{type(model).__name__} does"
        )
    return calls


def _same(one: Any, other: Any) -> bool:
    """Tell whether two arguments are equal, tensors by their values."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one is other or one == other)
