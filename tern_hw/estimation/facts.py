"""The facts of an estimate, as JSON holds them: units in the names, energies a token."""

import dataclasses
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tern_hw.costs import (
    Bracket,
    Comparison,
    Estimate,
    KindCost,
    Phase,
    Swing,
    TableArea,
    Values,
    beside,
    bracket,
    decode,
    estimate,
    prefill,
    ratios,
    tornado,
)
from tern_hw.costs.comparison import memory_roof, opponent_system
from tern_hw.estimation.request import Request

__all__ = ["QUOTED", "estimate_facts"]

#: What the often quoted figure is, in a sentence.
QUOTED = "the figure often quoted: an fp16 multiply and add over one 8-bit add, which no array is"


def estimate_facts(request: Request) -> dict[str, Any]:
    """Return everything there is to say of what was asked."""
    values = request.inputs.values()
    phases = {each.name: each for each in (_phase(request, decode), _phase(request, prefill))}
    found = {name: estimate(request.system, phase, values) for name, phase in phases.items()}
    others = {name: beside(each, request.inputs, values) for name, each in found.items()}
    ours = found["decode"]
    fp16 = next(each for each in others["decode"] if each.form == "fp16").lanes
    swings = tornado(request.inputs, _joules(request, phases["decode"]))
    area = TableArea(values)
    return {
        "model": _model(request),
        "array": {
            "name": request.system.array.name,
            "config": request.system.array.as_dict(),
            "engine_mm2": area.mm2(request.system.engine),
            "companion_mm2": area.mm2(request.system.companion),
            "on_chip_banks_mm2": ours.banks_mm2,
            "companion_fp16_macs_per_cycle": request.system.float_macs,
        },
        "technology": request.inputs.technology,
        "memory": {"name": request.inputs.memory, "energy_is_of": request.inputs.boundary},
        "clock_mhz": request.system.clock_mhz,
        "bits_per_weight": _bits_per_weight(ours),
        **{
            name: _phase_facts(each, _bracket(request, each, swings), values)
            for name, each in found.items()
        },
        "opponents": {
            name: [_opponent(each, found[name]) for each in rows] for name, rows in others.items()
        },
        "prefill_keeping_weights": _keeping(request, phases["prefill"], values),
        "ratios": None if fp16 is None else asdict(ratios(ours, fp16, values)),
        "quoted_ratio_is": QUOTED,
        "tornado": _tornado(request, phases["decode"], swings),
        "sources": {key: asdict(each) for key, each in request.inputs.coefficients.items()},
    }


def _phase(request: Request, make: Callable[..., Phase]) -> Phase:
    return make(request.model, request.context, request.batch, request.ternary)


def _joules(request: Request, phase: Phase) -> Callable[[Values], float]:
    return lambda values: estimate(request.system, phase, values).joules_per_token


def _ratio(request: Request, phase: Phase) -> Callable[[Values], float]:
    """Return the function that tells FP16's energy over ours."""
    other = opponent_system(request.system, "fp16")

    def answer(values: Values) -> float:
        theirs = estimate(other, phase, values).joules_per_token
        return theirs / estimate(request.system, phase, values).joules_per_token

    return answer


def _bracket(request: Request, found: Estimate, swings: list[Swing]) -> Bracket:
    return bracket(request.inputs, _joules(request, found.phase), swings)


def _keeping(request: Request, phase: Phase, values: Values) -> dict[str, Any]:
    """Return the prompt on an FP16 array that fetches each weight once for all of its tokens."""
    tokens = request.context * request.batch
    system = dataclasses.replace(opponent_system(request.system, "fp16"), reuse=tokens)
    found = estimate(system, phase, values)
    return {
        "format": "fp16",
        "joules_per_token": found.joules_per_token,
        "tokens_per_second": found.tokens_per_second,
        "bytes_per_token": found.bytes_per_token,
    }


def _model(request: Request) -> dict[str, Any]:
    model = request.model
    return {
        "name": model.name,
        "family": model.family,
        "source": model.source,
        "parameters": model.parameters,
        "block_linear_weights": model.ternary_parameters,
        "layers": model.layers,
    }


def _bits_per_weight(found: Estimate) -> float | None:
    kinds = [each for each in found.kinds if each.ternary]
    macs = sum(each.macs for each in kinds)
    return 8 * sum(each.weight_bytes for each in kinds) / macs if macs else None


def _phase_facts(found: Estimate, energy: Bracket, values: Values) -> dict[str, Any]:
    tokens = found.phase.tokens
    return {
        "context": found.phase.context,
        "batch": found.phase.batch,
        "tokens": tokens,
        "seconds": found.seconds,
        "tokens_per_second": found.tokens_per_second,
        "tokens_per_second_of_memory_alone": memory_roof(found, values),
        "joules_per_token": asdict(energy),
        "bytes_per_token": found.bytes_per_token,
        "bound": found.bound,
        "stack_joules_per_token": {name: pj / tokens / 1e12 for name, pj in found.stack.items()},
        "kinds": [_kind(each, tokens) for each in found.kinds],
    }


def _kind(cost: KindCost, tokens: int) -> dict[str, Any]:
    energy = {name: pj / tokens / 1e12 for name, pj in asdict(cost.energy).items()}
    return {
        "kind": cost.kind,
        "ternary": cost.ternary,
        "macs": cost.macs,
        "cycles": cost.cycles,
        "stall_cycles": cost.stall_cycles,
        "bytes_per_token": cost.bytes / tokens,
        "bound": cost.bound,
        "joules_per_token": energy | {"total": cost.energy.total / tokens / 1e12},
    }


def _opponent(other: Comparison, ours: Estimate) -> dict[str, Any]:
    if other.lanes is None or other.area is None:
        return {"format": other.form, "title": other.title, "missing": other.missing}
    return {
        "format": other.form,
        "title": other.title,
        "joules_per_token": other.lanes.joules_per_token,
        "energy_ratio": other.lanes.joules_per_token / ours.joules_per_token,
        "stack_joules_per_token": {
            name: pj / other.lanes.phase.tokens / 1e12 for name, pj in other.lanes.stack.items()
        },
        "kinds": [_kind(each, other.lanes.phase.tokens) for each in other.lanes.kinds],
        "bytes_per_token": other.lanes.bytes_per_token,
        "area_mm2": other.lanes.area_mm2,
        "tokens_per_second": {
            "equal_lanes": other.lanes.tokens_per_second,
            "equal_area": other.area.tokens_per_second,
            "memory_alone": other.roof,
        },
    }


def _tornado(request: Request, phase: Phase, swings: list[Swing]) -> list[dict[str, Any]]:
    """Return what moves the energy of a token, and what that does to FP16's ratio to it."""
    answer = _ratio(request, phase)
    rows = []
    for swing in swings:
        coefficient = request.inputs.coefficients[swing.key]
        rows.append(
            {
                "input": swing.key,
                "value": coefficient.value,
                "low": coefficient.low,
                "high": coefficient.high,
                "unit": coefficient.unit,
                "source": coefficient.source,
                "joules_per_token": {"at_low": swing.low, "at_high": swing.high},
                "fp16_energy_ratio": {
                    "at_low": answer(request.inputs.values("low", only=swing.key)),
                    "at_high": answer(request.inputs.values("high", only=swing.key)),
                },
            }
        )
    return rows
