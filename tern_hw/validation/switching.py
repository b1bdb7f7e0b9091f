"""The compute ratio of FP16 over ternary: by the tables, and by the toggles of gates."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tern_hw.config import Activation, ArrayConfig, Dot, OutputFormat, Packing
from tern_hw.costs import load_inputs
from tern_hw.costs.actions import Action, row_step
from tern_hw.costs.energy import energy_pj
from tern_hw.gates.energy import measure
from tern_hw.gates.layer import random_layer
from tern_hw.gates.stimulus import dot_work, mac_work
from tern_hw.gateware.blocks import emit_block
from tern_hw.gateware.emit import convert
from tern_hw.gateware.fp16_mac import Fp16Mac

__all__ = ["FULL", "QUICK", "SCOPE", "RatioCase", "check_ratios"]

#: Table of the analytic ratio: the gates' own node.
TECHNOLOGY: Final = "45nm"
#: Two ratios are near each other within this share of the gates'.
BAR: Final = 0.25
SCOPE: Final = (
    "a lane of the dot product over a group (decoder, operand registers, tree, group sum) beside "
    "a fused FP16 multiply-add with its result's register; no scale and shift, memory, wires, "
    "clock tree or glitches"
)


@dataclass(frozen=True, kw_only=True)
class RatioCase:
    """A ternary array, a format of the opponent's sum, and seeded data."""

    config: ArrayConfig
    accumulator: OutputFormat
    rows: int
    inputs: int
    tokens: int
    zeros: float
    seed: int

    @property
    def name(self) -> str:
        """What a table calls it."""
        config = self.config
        return (
            f"{config.lanes} lanes {config.activation} {config.packing}, sum in {self.accumulator},"
            f" {self.zeros:.0%} zeros"
        )


def _case(lanes: int, packing: str, accumulator: str, *, zeros: float = 0.42) -> RatioCase:
    return RatioCase(
        config=ArrayConfig(lanes=lanes, group_size=2 * lanes, packing=Packing(packing), max_k=1024),
        accumulator=OutputFormat(accumulator),
        rows=16,
        inputs=6 * lanes,
        tokens=8,
        zeros=zeros,
        seed=7,
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


def check_ratios(
    cases: tuple[RatioCase, ...], advance: Callable[[int], None] = lambda count: None
) -> Iterator[dict[str, Any]]:
    """Yield the ratio FP16 over ternary of each case, predicted and from gates, pJ beside it.

    Raises
    ------
    TernError
        If Yosys is not installed.
    """
    for case in cases:
        analytic, gates = _analytic(case), _gates(case)
        predicted = analytic["fp16"] / analytic["ternary"]
        measured = gates["fp16"] / gates["ternary"]
        error = predicted / measured - 1
        yield {
            "name": case.name,
            "predicted": predicted,
            "measured": measured,
            "error": error,
            "within": abs(error) <= BAR,
            "bar": BAR,
            "analytic_pj_per_mac": analytic,
            "gates_pj_per_mac": gates,
        }
        advance(1)


def _analytic(case: RatioCase) -> dict[str, float]:
    """Return pJ a multiply-accumulate by the table, with the layer's zeros."""
    inputs = load_inputs(TECHNOLOGY, "lpddr5")
    values = inputs.replaced("data.zero_fraction", case.zeros, "the layer").values()
    wide = case.accumulator is OutputFormat.FP32
    mac = Counter({Action("fp16_mul"): 1, Action("fp32_add" if wide else "fp16_add"): 1})
    mac[Action("register", bits=32 if wide else 16)] = 1
    ternary, _ = energy_pj(row_step(case.config), values)
    fp16, _ = energy_pj(mac, values)
    return {"ternary": ternary / case.config.lanes, "fp16": fp16}


def _gates(case: RatioCase) -> dict[str, float]:
    """Return pJ a multiply-accumulate of the synthesised gates on the same layer."""
    config = case.config
    assert config.dot is Dot.TREE
    layer = random_layer(case.seed, case.rows, case.inputs, case.tokens, config, zeros=case.zeros)
    parts = 4
    x = layer.activations(Activation(config.activation))
    dot = dot_work(config, layer.matrix.digits(), x, parts=parts)
    mac = mac_work(
        layer.weight, layer.half_tokens(), parts=parts, accumulator=str(case.accumulator)
    )
    verilog = convert(Fp16Mac(case.accumulator, registers=1), "mac")
    found = {
        "ternary": (*emit_block(config, "dot"), dot),
        "fp16": ("mac", verilog, mac),
    }
    return {
        name: measure(text, top, work.stimulus, warm_up=work.warm_up).per(work.macs_per_cycle).value
        for name, (top, text, work) in found.items()
    }
