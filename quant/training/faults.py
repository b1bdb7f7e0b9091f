"""Find where a model's numbers stop being finite."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from quant.methods import quantized_linears
from quant.methods.base import latent_weight
from quant.training.sharding import whole

__all__ = ["first_nonfinite"]

#: Looks at a layer's inputs and output.
Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]


def first_nonfinite(model: nn.Module, tokens: Tensor) -> str:
    """Say which quantised layer is the first with a value that is not finite, in words.

    Parameters
    ----------
    model : nn.Module
        A prepared causal language model.
    tokens : int64 [batch, tokens]
    """
    layers = {
        name: [latent_weight(linear), *quantizer.parameters()]
        for name, linear, quantizer in quantized_linears(model)
    }
    for name, tensors in layers.items():
        if not all(bool(whole(tensor).isfinite().all()) for tensor in tensors):
            return f"a parameter of {name} is not finite"
    if output := _first_output(model, tokens):
        return f"first in the output of {output}"
    # Clipping by a norm that is not finite spoils every gradient, so these say the least.
    for name, tensors in layers.items():
        if not all(
            tensor.grad is None or bool(whole(tensor.grad).isfinite().all()) for tensor in tensors
        ):
            return f"first in the gradient of {name}"
    return "in no single layer"


def _first_output(model: nn.Module, tokens: Tensor) -> str | None:
    """Return the first quantised layer whose output is not finite for these tokens."""
    found: list[str] = []

    def watch(name: str) -> Hook:
        def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not found and not bool(output.isfinite().all()):
                found.append(name)

        return look

    handles = [
        linear.register_forward_hook(watch(name)) for name, linear, _ in quantized_linears(model)
    ]
    try:
        with torch.no_grad():
            model(input_ids=tokens, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
