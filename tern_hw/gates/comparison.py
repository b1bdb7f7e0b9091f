"""Ternary dot products and a floating-point MAC on the same layer, gate by gate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tern_hw.config import Activation, ArrayConfig
from tern_hw.errors import TernError
from tern_hw.gates.cells import Bracket
from tern_hw.gates.energy import GateEnergy, measure
from tern_hw.gates.layer import Layer
from tern_hw.gates.stimulus import Work, dot_work, mac_work, scale_work

__all__ = ["Line", "Opponent", "compare"]


@dataclass(frozen=True, kw_only=True)
class Opponent:
    """A floating-point MAC: a module "mac" with ports a, b, c and result, a * b + c."""

    #: What the table calls it.
    name: str
    verilog: str
    #: "fp16" or "fp32": the format of c and of the result.
    accumulator: str
    #: Cycles from a and b, and from c, to the result.
    latency: int = 1
    loop: int = 1


@dataclass(frozen=True, kw_only=True)
class Line:
    """One block's energy, and how much of the layer it computes in a cycle."""

    name: str
    energy: GateEnergy
    macs_per_cycle: float

    @property
    def pj_per_mac(self) -> Bracket:
        """Energy of one weight times one activation (pJ)."""
        return self.energy.per(self.macs_per_cycle)


def compare(
    config: ArrayConfig,
    layer: Layer,
    opponents: list[Opponent],
    emit: Callable[[ArrayConfig, str], tuple[str, str]],
    *,
    parts: int,
    library: Path | None = None,
) -> Iterator[Line]:
    """Measure the blocks one after the other, all on the same rows and tokens.

    Parameters
    ----------
    config
        Lanes, group and packing of the ternary array; both activations are measured.
    layer
        Its rows are shared out into `parts` streams a token.
    opponents
        The MACs, with the layer's weights as they were before they became ternary.
    emit
        Returns module and Verilog of a block ("dot", "scale") of an array.
    library
        As in `measure`.

    Raises
    ------
    TernError
        If the layer has other groups than the array, or as `measure`.
    """
    if config.groups(layer.matrix.in_features) != layer.matrix.groups:
        raise TernError(
            f"group_size must be the layer's {layer.matrix.group_size}, not {config.group_size}"
        )
    for activation in Activation:
        array = _with_activation(config, activation)
        x = layer.activations(activation)
        digits = layer.matrix.digits()
        dot = dot_work(array, digits, x, parts=parts)
        scales = layer.matrix.scale, layer.matrix.shift
        works = {"dot": dot, "scale": scale_work(array, dot, *scales, x, parts=parts)}
        for block, work in works.items():
            name = f"ternary {activation} {block}"
            yield _line(name, *emit(array, block), work, library)
    for opponent in opponents:
        work = mac_work(
            layer.weight,
            layer.half_tokens(),
            parts=parts,
            accumulator=opponent.accumulator,
            latency=opponent.latency,
            loop=opponent.loop,
        )
        name = (
            f"FP16 MAC {opponent.name}: {opponent.accumulator} sum, {opponent.latency} register(s)"
        )
        yield _line(name, "mac", opponent.verilog, work, library)


def _with_activation(config: ArrayConfig, activation: Activation) -> ArrayConfig:
    fields = config.as_dict() | {"activation": activation}
    return ArrayConfig.from_dict(fields)


def _line(name: str, top: str, verilog: str, work: Work, library: Path | None) -> Line:
    energy = measure(verilog, top, work.stimulus, library, warm_up=work.warm_up)
    return Line(name=name, energy=energy, macs_per_cycle=work.macs_per_cycle)
