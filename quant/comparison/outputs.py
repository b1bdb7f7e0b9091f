"""How far a quantised layer's outputs are from the unquantised one's, on text it has not seen."""

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from quant.methods import quantized_linears

__all__ = ["output_error"]


@torch.no_grad()
def output_error(model: PreTrainedModel, teacher: PreTrainedModel, windows: Tensor) -> float:
    """Return ``||X (W - D)^T||^2 / ||X W^T||^2``, the geometric mean over quantised layers.

    Parameters
    ----------
    model : PreTrainedModel
        Prepared; D is what its layers compute with.
    teacher : PreTrainedModel
        The unquantised model; W are its weights, and X what enters them.
    windows : int64 [windows, tokens]
        Text that nothing was calibrated on.
    """
    layers = {name: linear for name, linear, _ in quantized_linears(model)}
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in layers}

    def watch(name: str, linear: nn.Linear):  # type: ignore[no-untyped-def]
        def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2)
            # Made here and let go again: all layers' at once would be a second model.
            difference = linear.weight - layers[name].weight
            for place, matrix in enumerate((difference, linear.weight)):
                sums[name][place] += float((x @ matrix.T).square().sum())

        return look

    handles = [
        module.register_forward_pre_hook(watch(name, module))
        for name, module in teacher.named_modules()
        if name in layers and isinstance(module, nn.Linear)
    ]
    try:
        for window in windows:
            teacher(input_ids=window[None].to(teacher.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    # A layer without any error would make the mean 0; none of the methods reaches that.
    logs = [math.log(max(float(error / whole), 1e-12)) for error, whole in sums.values()]
    return math.exp(sum(logs) / len(logs))
