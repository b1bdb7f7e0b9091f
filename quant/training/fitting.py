"""Quantise a copy of a model without training: by its weights alone, or calibrated on a text."""

import copy

from torch import Tensor
from transformers import PreTrainedModel

from quant.methods import Method, MethodConfig
from quant.progress import Progress, silent
from quant.text.batches import spread_windows

__all__ = ["fitted_copy"]


def fitted_copy(
    teacher: PreTrainedModel,
    method: Method,
    config: MethodConfig,
    tokens: Tensor,
    *,
    window: int,
    windows: int,
    seed: int,
    progress: Progress = silent,
) -> PreTrainedModel:
    """Return a copy of a model, prepared by a method.

    Parameters
    ----------
    teacher : PreTrainedModel
        Not changed.
    method : Method
    config : MethodConfig
        The method's options.
    tokens : int64 [T]
        What a calibrated method looks at; others do not.
    window, windows, seed : int
        Tokens of a window, how many windows, and which.
    progress : Progress
        Counts the layers.
    """
    model = copy.deepcopy(teacher)
    calibration = spread_windows(tokens, window, windows, seed) if method.calibrated else None
    method.prepare(model, config, calibration=calibration, progress=progress)
    return model
