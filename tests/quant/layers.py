"""What the tests of post-training methods share: weights, inputs as a model's are, and errors."""

import torch

from quant.methods import METHODS, method_config
from quant.methods.calibration import Statistics


def normal(*shape, seed, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def inputs(tokens=400, width=40, seed=0):
    """Correlated inputs with channels of very different size, as a model's are."""
    mix = normal(width, width, seed=seed + 100) / width**0.5
    size = normal(width, seed=seed + 200).exp()
    return (normal(tokens, width, seed=seed) @ mix + 0.3 * normal(1, width, seed=seed + 300)) * size


def statistics(x):
    x = x.double()
    return Statistics(x.T @ x / len(x), x.abs().mean(0), len(x))


def quantized(name, weight, seen, **options):
    """The quantiser that a method makes for a weight."""
    method, config = METHODS[name], method_config(name, {"group_size": 16, **options})
    arguments = (weight, seen, config, "layer") if method.calibrated else (weight, config, "layer")
    return method.quantizer(*arguments)


def row_error(weight, levels, gram):
    rest = (weight - levels).double()
    return ((rest @ gram) * rest).sum(-1)
