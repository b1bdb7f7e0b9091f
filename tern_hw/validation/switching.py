"""The compute ratio of FP16 over ternary: by the tables, and by the toggles of gates."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from tern_hw.config import Activation, ArrayConfig, Dot, OutputFormat, Packing
from tern_hw.costs import load_inputs
from tern_hw.costs.actions import Action, row_step
from tern_hw.costs.energy import energy_pj
from tern_hw.gates.energy import measure
from tern_hw.gates.layer import Layer, random_layer
from tern_hw.gates.stimulus import Work, dot_work, mac_work
from tern_hw.gateware.blocks import emit_block
from tern_hw.gateware.emit import convert
from tern_hw.gateware.fp16_mac import Fp16Mac

__all__ = [
    "FULL",
    "QUICK",
    "SCOPE",
    "RatioCase",
    "beside_record",
    "check_ratios",
    "layer_cases",
    "to_record",
]

#: Table of the analytic ratio: the gates' own node.
TECHNOLOGY: Final = "45nm"
#: Two ratios are near each other within this share of the gates'.
BAR: Final = 0.25
#: Lanes of the array that computes a model's layer.
LAYER_LANES: Final = 64
#: Of the seeded layers.
SEED: Final = 7
#: Streams that a token is cut into, each with a share of the rows.
PARTS: Final = 4
SCOPE: Final = (
    "a lane of the dot product over a group (decoder, operand registers, tree, group sum) beside "
    "a fused FP16 multiply-add with its result's register; no scale and shift, memory, wires, "
    "clock tree or glitches"
)


@dataclass(frozen=True, kw_only=True)
class RatioCase:
    """A ternary array, a format of the opponent's sum, and the layer that both compute."""

    config: ArrayConfig
    accumulator: OutputFormat
    #: What a table calls the layer, and where it comes from.
    data: str
    layer: Callable[[], Layer]

    @property
    def name(self) -> str:
        """What a table calls it."""
        config = self.config
        return (
            f"{config.lanes} lanes {config.activation} {config.packing}, sum in {self.accumulator},"
            f" {self.data}"
        )


def _case(lanes: int, packing: str, accumulator: str, *, zeros: float = 0.42) -> RatioCase:
    config = ArrayConfig(lanes=lanes, group_size=2 * lanes, packing=Packing(packing), max_k=1024)
    return RatioCase(
        config=config,
        accumulator=OutputFormat(accumulator),
        data=f"{zeros:.0%} zeros",
        layer=lambda: random_layer(SEED, 16, 6 * lanes, 8, config, zeros=zeros),
    )


QUICK: Final = (_case(16, "2bit", "fp16"),)
FULL: Final = (
    *QUICK,
    _case(64, "2bit", "fp16"),
    _case(64, "base3", "fp16"),
    _case(64, "2bit", "fp32"),
    _case(64, "base3", "fp32"),
    _case(64, "2bit", "fp16", zeros=0.7),
)


def layer_cases(layer: Layer, lanes: int = LAYER_LANES) -> tuple[RatioCase, ...]:
    """Return the cases of a layer: both packings, both formats of the opponent's sum."""
    n, _ = layer.matrix.shape
    data = f"{layer.origin}, {n} rows, {len(layer.tokens)} tokens, {layer.zeros:.1%} zeros"
    return tuple(
        RatioCase(
            config=ArrayConfig(lanes=lanes, group_size=layer.matrix.group_size, packing=packing),
            accumulator=accumulator,
            data=data,
            layer=lambda: layer,
        )
        for packing in Packing
        for accumulator in (OutputFormat.FP16, OutputFormat.FP32)
    )


def check_ratios(
    cases: tuple[RatioCase, ...], advance: Callable[[int], None] = lambda count: None
) -> Iterator[dict[str, Any]]:
    """Yield the ratio FP16 over ternary of each case, predicted and from gates, pJ beside it.

    Raises
    ------
    TernError
        If Yosys is not installed, or a layer does not fit the array.
    """
    for case in cases:
        layer = case.layer()
        gates = {
            "ternary": _dot_pj(layer, case.config),
            "fp16": _mac_pj(layer, case.accumulator),
        }
        yield _facts(case.name, gates, _analytic(case.config, case.accumulator, layer.zeros))
        advance(1)


def to_record(case: RatioCase, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record keeps of a measured case, so that tables can be held to it."""
    kept = ("name", "predicted", "measured", "error", "gates_pj_per_mac")
    return {name: found[name] for name in kept} | {
        "configuration": case.config.as_dict(),
        "accumulator": str(case.accumulator),
        "zeros": case.layer().zeros,
    }


def beside_record(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ratio by the tables of today beside the recorded one of gates."""
    config = ArrayConfig.from_dict(entry["configuration"])
    analytic = _analytic(config, OutputFormat(entry["accumulator"]), entry["zeros"])
    found = _facts(entry["name"], entry["gates_pj_per_mac"], analytic)
    return found | {"recorded_error": entry["error"]}


def _facts(name: str, gates: Mapping[str, float], analytic: Mapping[str, float]) -> dict[str, Any]:
    predicted = analytic["fp16"] / analytic["ternary"]
    measured = gates["fp16"] / gates["ternary"]
    error = predicted / measured - 1
    return {
        "name": name,
        "predicted": predicted,
        "measured": measured,
        "error": error,
        "within": abs(error) <= BAR,
        "bar": BAR,
        "analytic_pj_per_mac": dict(analytic),
        "gates_pj_per_mac": dict(gates),
    }


def _analytic(config: ArrayConfig, accumulator: OutputFormat, zeros: float) -> dict[str, float]:
    """Return pJ a multiply-accumulate by the table, with the layer's zeros."""
    inputs = load_inputs(TECHNOLOGY, "lpddr5")
    values = inputs.replaced("data.zero_fraction", zeros, "the layer").values()
    wide = accumulator is OutputFormat.FP32
    mac = Counter({Action("fp16_mul"): 1, Action("fp32_add" if wide else "fp16_add"): 1})
    mac[Action("register", bits=32 if wide else 16)] = 1
    ternary, _ = energy_pj(row_step(config), values)
    fp16, _ = energy_pj(mac, values)
    return {"ternary": ternary / config.lanes, "fp16": fp16}


@lru_cache(maxsize=64)
def _dot_pj(layer: Layer, config: ArrayConfig) -> float:
    """Return pJ a multiply-accumulate of a ternary row's gates."""
    assert config.dot is Dot.TREE
    x = layer.activations(Activation(config.activation))
    work = dot_work(config, layer.matrix.digits(), x, parts=PARTS)
    return _pj(*emit_block(config, "dot"), work)


@lru_cache(maxsize=64)
def _mac_pj(layer: Layer, accumulator: OutputFormat) -> float:
    """Return pJ a multiply-accumulate of a binary16 unit's gates."""
    work = mac_work(layer.weight, layer.half_tokens(), parts=PARTS, accumulator=str(accumulator))
    return _pj("mac", convert(Fp16Mac(accumulator, registers=1), "mac"), work)


def _pj(top: str, verilog: str, work: Work) -> float:
    energy = measure(verilog, top, work.stimulus, warm_up=work.warm_up)
    return energy.per(work.macs_per_cycle).value
