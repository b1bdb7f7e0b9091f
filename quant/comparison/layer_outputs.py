"""How far quantised layers' outputs are from the unquantised ones', on text they have not seen."""

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from quant.methods import quantized_linears
from quant.methods.calibration import input_statistics
from quant.methods.hessian import output_error

__all__ = ["mean_output_error"]


@torch.no_grad()
def mean_output_error(model: PreTrainedModel, teacher: PreTrainedModel, windows: Tensor) -> float:
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
    levels = {name: linear for name, linear, _ in quantized_linears(model)}
    exact = {
        name: module
        for name, module in teacher.named_modules()
        if name in levels and isinstance(module, nn.Linear)
    }

    def read() -> None:
        for window in windows:
            teacher(input_ids=window[None].to(teacher.device), use_cache=False)

    logs = 0.0
    for name, statistics in input_statistics(exact, read).items():
        weight = exact[name].weight
        error = output_error(weight, levels[name].weight.to(weight.device), statistics.gram)
        # A layer without any error would make the mean 0; no method reaches that.
        logs += math.log(max(error, LEAST_ERROR))
    return math.exp(logs / len(exact))


#: Error below which a layer counts as having this one.
LEAST_ERROR = 1e-12
