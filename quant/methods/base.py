"""What every quantisation method is made of: a quantiser per layer, and prepare and convert.

`prepare` gives each linear layer of a model's blocks a `Quantizer`, as PyTorch parametrises a
weight: the layer keeps its weight, and whoever reads `linear.weight` gets the fake-quantised one.
`convert` puts that one in the weight's place and takes the quantiser away.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from quant.methods.config import MethodConfig
from quant.models.linears import block_linears, check_unshared, select_linears
from quant.progress import Progress, silent
from quant.ternary import TernaryFit
from tern_hw.errors import TernError

__all__ = [
    "LayerMethod",
    "Method",
    "Quantizer",
    "attach",
    "check_finite",
    "convert",
    "latent_weight",
    "quantized_linears",
    "quantizer_of",
]


class Quantizer(nn.Module, ABC):
    """Maps a layer's weight ``[N, K]`` to the weight it computes with, of the same shape.

    A trained method's parameters (scales and shifts) live here, the weight in the layer.
    """

    #: Whether the levels are ``alpha * T + gamma`` with T in {-1, 0, +1}: such a layer has an
    #: artifact.
    ternary: ClassVar[bool] = False

    @abstractmethod
    def forward(self, weight: Tensor) -> Tensor:
        """Return the fake-quantised weight ``[N, K]``, in float32 where `weight` is float32."""

    @abstractmethod
    def bits_per_weight(self, weight: Tensor) -> float:
        """Return the bits that a stored weight takes, scales and shifts counted."""

    def fit(self, weight: Tensor) -> TernaryFit:
        """Return trits, scales and shifts; dequantised they equal `forward`'s result to the bit.

        Raises
        ------
        TernError
            If the method is not ternary.
        """
        kind = type(self).__name__.removesuffix("Quantizer").lower()
        raise TernError(f"method must be ternary to have trits, not {kind}")


class Method(ABC):
    """One way to quantise a model; stateless, found by its name."""

    #: What command lines and tables call it.
    name: ClassVar[str]
    #: Where it comes from: paper and equation.
    source: ClassVar[str]
    #: Its options.
    config_type: ClassVar[type[MethodConfig]] = MethodConfig
    #: Whether its quantisers have a gradient for the weight, so that training makes sense.
    trainable: ClassVar[bool] = False
    #: Whether `prepare` needs calibration text.
    calibrated: ClassVar[bool] = False

    @abstractmethod
    def prepare(
        self,
        model: nn.Module,
        config: MethodConfig,
        *,
        calibration: Tensor | None = None,
        progress: Progress = silent,
    ) -> None:
        """Give each selected linear layer of the model's blocks its quantiser.

        Parameters
        ----------
        model : nn.Module
            A causal language model of transformers; changed in place.
        config : MethodConfig
            Of `config_type`.
        calibration : int64 [windows, tokens], optional
            Token ids; required where `calibrated`.
        progress : Progress
            Counts the layers.

        Raises
        ------
        TernError
            If no layer matches, a weight is shared or not finite, or calibration is missing.
        """

    @abstractmethod
    def blank(self, weight: Tensor, config: Any) -> Quantizer:
        """Return a quantiser for a weight ``[N, K]`` whose tensors wait to be loaded from a file.

        Its parameters and buffers have the names, shapes and types of a fitted one; their values
        mean nothing.
        """

    def select(self, model: nn.Module, config: MethodConfig) -> dict[str, nn.Linear]:
        """Return the layers to quantise, by name; refuse shared weights and a second `prepare`."""
        linears = select_linears(block_linears(model), config.layers)
        for name, linear in linears.items():
            if parametrize.is_parametrized(linear, "weight"):
                raise TernError(f"{name} must be a plain linear layer, not one prepared before")
        check_unshared(model, linears)
        return linears


class LayerMethod(Method):
    """A method that looks at one layer at a time and at nothing but its weight."""

    @abstractmethod
    def quantizer(self, weight: Tensor, config: Any, name: str) -> Quantizer:
        """Return the quantiser of a weight ``[N, K]``; `name` is for messages."""

    def blank(self, weight: Tensor, config: Any) -> Quantizer:
        return self.quantizer(torch.zeros_like(weight), config, "weight")

    def prepare(
        self,
        model: nn.Module,
        config: MethodConfig,
        *,
        calibration: Tensor | None = None,
        progress: Progress = silent,
    ) -> None:
        linears = self.select(model, config)
        with progress(f"{self.name}: preparing layers", len(linears)) as advance:
            for name, linear in linears.items():
                weight = linear.weight.detach()
                check_finite(weight, f"{name}.weight")
                attach(linear, self.quantizer(weight, config, name))
                advance(1)


def attach(linear: nn.Linear, quantizer: Quantizer) -> None:
    """Make a layer compute with its quantiser's weight."""
    # unsafe: PyTorch would otherwise run the quantiser once more to compare shapes and types.
    parametrize.register_parametrization(linear, "weight", quantizer, unsafe=True)


def quantizer_of(linear: nn.Module) -> Quantizer | None:
    """Return the quantiser of a layer's weight, if it has one."""
    if not parametrize.is_parametrized(linear, "weight"):
        return None
    quantizer = linear.parametrizations["weight"][0]
    return quantizer if isinstance(quantizer, Quantizer) else None


def latent_weight(linear: nn.Module) -> Tensor:
    """Return a prepared layer's weight as it was before quantisation, or as training left it."""
    return linear.parametrizations["weight"].original


def quantized_linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear, Quantizer]]:
    """Yield name, layer and quantiser of each prepared layer, in order."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and (quantizer := quantizer_of(module)) is not None:
            yield name, module, quantizer


def convert(model: nn.Module) -> None:
    """Replace each prepared layer's weight by the quantised one, a plain parameter again.

    No tensor and no module of a method stays behind: the model is as transformers made it.
    """
    for _, linear, _ in list(quantized_linears(model)):
        with torch.no_grad():
            parametrize.remove_parametrizations(linear, "weight", leave_parametrized=True)


def check_finite(weight: Tensor, name: str) -> None:
    """Refuse a weight with NaN or infinity, by its first such entry."""
    if not bool(weight.isfinite().all()):
        n, k = (~weight.isfinite()).nonzero()[0].tolist()
        raise TernError(f"{name}[{n}, {k}] must be finite, not {float(weight[n, k])}")
