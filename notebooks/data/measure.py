"""Measure what group size and activation width cost real layers in accuracy; needs PyTorch.

`python -m notebooks.data.measure` writes layers.json beside this file: three linear layers of
SmolLM2-135M, the inputs that enter them while the model reads chapter 1 of Moby-Dick, the first
windows to calibrate on and the one after them to measure on. Takes some minutes.
"""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from quant.methods.aware import Aware, AwareConfig
from quant.methods.calibration import Statistics
from quant.models.capture import capture_all_inputs
from quant.models.linears import named_linear
from quant.models.sources import find_source
from quant.ternary import TernaryFit, ternarize
from quant.text.excerpt import excerpt
from quant.text.loading import tokenize
from tern_hw.cli import progress
from tern_hw.files import write_atomic
from tern_hw.matrix import TernaryMatrix
from tern_hw.reference import matmul, matmul_quantized

OUTPUT: Final = Path(__file__).with_name("layers.json")
MODEL: Final = "smollm2"
#: The first block, the middle one and the last: 576 inputs, 1536 outputs each.
LAYERS: Final = tuple(f"model.layers.{block}.mlp.gate_proj" for block in (0, 14, 29))
GROUP_SIZES: Final = (32, 64, 96, 128, 192, 288, 576)
#: Bits of an aligned activation, sign included.
WIDTHS: Final = (8, *range(10, 25))
#: Group size that the widths are measured at.
GROUP_SIZE: Final = 128
#: Tokens of a window; windows to calibrate on, after which one is measured on.
WINDOW: Final = 512
CALIBRATION_WINDOWS: Final = 4
#: Tokens of the measured window that go through the exact reference.
EXACT_TOKENS: Final = 64

Array = NDArray[Any]


def main() -> None:
    """Measure, and write the table whole or not at all."""
    source = find_source(MODEL, progress)
    calibration, held_out = _inputs(source)
    layers = {}
    with progress("measuring layers", len(LAYERS)) as advance:
        for name in LAYERS:
            weight = named_linear(source.model, name).weight.detach().float()
            layers[name] = _measure(name, weight, calibration[name], held_out[name])
            advance(1)
    table = {
        "model": source.origin,
        "text": "Moby-Dick, chapter 1",
        "calibration_tokens": WINDOW * CALIBRATION_WINDOWS,
        "measured_tokens": WINDOW,
        "exact_tokens": EXACT_TOKENS,
        "activation_group_size": GROUP_SIZE,
        "layers": layers,
    }
    write_atomic(OUTPUT, json.dumps(table, indent=1).encode() + b"\n")


def _inputs(source: Any) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return what enters the layers, [tokens, K]: to calibrate on, and to measure on."""
    ids = tokenize(excerpt(), source.tokenizer)
    windows = ids[: WINDOW * (CALIBRATION_WINDOWS + 1)].split(WINDOW)
    with progress("reading the text", len(windows)) as advance:
        captured = []
        for window in windows:
            captured.append(
                capture_all_inputs(source.model, source.tokenizer, LAYERS, window, tokens=WINDOW)
            )
            advance(1)
    calibration = {name: np.concatenate([each[name] for each in captured[:-1]]) for name in LAYERS}
    return calibration, captured[-1]


def _measure(
    name: str, weight: torch.Tensor, calibration: Array, held_out: Array
) -> dict[str, Any]:
    inputs = torch.from_numpy(calibration).double()
    gram = inputs.T @ inputs / len(inputs)
    statistics = Statistics(gram, inputs.abs().mean(0), len(inputs))
    groups = []
    for size in GROUP_SIZES:
        fits = {"als": ternarize(weight, size), "aware": _aware(weight, statistics, size, name)}
        row: dict[str, Any] = {"group_size": size}
        for method, fit in fits.items():
            row[method] = _fit_facts(fit, weight, held_out)
            if size == GROUP_SIZE and method == "aware":
                chosen = fit
        groups.append(row)
    return {
        "shape": list(weight.shape),
        "groups": groups,
        "activations": _activation_errors(_matrix(chosen), held_out[:EXACT_TOKENS]),
    }


def _aware(weight: torch.Tensor, statistics: Statistics, size: int, name: str) -> TernaryFit:
    config = AwareConfig(group_size=size)
    return Aware().quantizer(weight, statistics, config, name).fit(weight)


def _fit_facts(fit: TernaryFit, weight: torch.Tensor, held_out: Array) -> dict[str, float]:
    """Return errors of a fit as shares of the weight's and of the output's energy."""
    x = torch.from_numpy(held_out).double()
    exact = x @ weight.double().T
    error = x @ fit.dequantize().double().T - exact
    matrix = _matrix(fit)
    return {
        "bits_per_weight": matrix.bits_per_weight,
        "zeros": float((fit.trits == 0).float().mean()),
        "weight_error": fit.relative_error(weight),
        "output_error": float(error.square().sum() / exact.square().sum()),
    }


def _matrix(fit: TernaryFit) -> TernaryMatrix:
    return TernaryMatrix.from_digits(
        fit.digits.numpy(),
        fit.scale.numpy(),
        fit.shift.numpy(),
        group_size=fit.group_size,
        packing="base3",
    )


def _activation_errors(matrix: TernaryMatrix, held_out: Array) -> dict[str, Any]:
    """Return what rounding the activations adds to a ternary product, relative to its energy.

    All are errors against the product of float32 activations, in float64: binary16 activations
    multiplied exactly, aligned to W bits, and as int8 with a scale a token. `aligned` is beside
    the exact binary16 product.
    """
    trits = torch.from_numpy(matrix.digits().astype(np.float64)) - 1
    levels = TernaryFit(
        trits.to(torch.int8),
        torch.from_numpy(matrix.scale.copy()),
        torch.from_numpy(matrix.shift.copy()),
        matrix.group_size,
    ).dequantize()
    truth = held_out.astype(np.float64) @ levels.double().numpy().T
    half = held_out.astype(np.float16)
    exact = matmul(half, matrix)
    return {
        "fp16": _relative(exact, truth),
        "int8": _relative(matmul_quantized(held_out, matrix), truth),
        "aligned": [
            {"bits": bits, "from_exact": _relative(matmul(half, matrix, aligned=bits), exact)}
            for bits in WIDTHS
        ],
    }


def _relative(found: Array, truth: Array) -> float:
    error = found.astype(np.float64) - truth.astype(np.float64)
    return float(np.square(error).sum() / np.square(truth.astype(np.float64)).sum())


if __name__ == "__main__":
    main()
