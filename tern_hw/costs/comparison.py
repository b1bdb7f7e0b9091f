"""A ternary system beside those of other number formats: at equal lanes, area and bandwidth."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from tern_hw.costs.area import AreaModel, TableArea
from tern_hw.costs.evaluation import estimate
from tern_hw.costs.opponents import FORMATS, Opponent
from tern_hw.costs.system import Energy, Estimate, System
from tern_hw.costs.technology import Inputs, Values
from tern_hw.errors import TernError

__all__ = ["Comparison", "Ratios", "beside", "linear_energy", "memory_roof", "ratios"]

#: Binary digits that a ratio of areas is kept to.
AREA_STEPS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A system of another format, or why there is none."""

    form: str
    title: str
    #: At as many lanes and rows; None where the technology lacks a coefficient of it.
    lanes: Estimate | None = None
    #: At the ternary array's area, with more or fewer lanes.
    area: Estimate | None = None
    #: Tokens a second where only the memory's bandwidth counts; None for one never late.
    roof: float | None = None
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """How many times as much FP16 takes, by what is counted; all but `quoted` with scales."""

    #: An fp16 multiply and add over one 8-bit add: the often quoted figure, of nothing built.
    quoted: float
    #: Arithmetic and registers of the blocks' linear layers.
    compute: float
    #: The same and the activation memory.
    on_chip: float
    #: Bits from the memory: 16 over codes, scales, shifts and padding.
    memory: float
    #: All energy of the blocks' linear layers, without leakage.
    linears: float
    #: All energy of a token.
    token: float
    #: Time of a token.
    time: float


def beside(
    ternary: Estimate, inputs: Inputs, values: Values, area: AreaModel | None = None
) -> list[Comparison]:
    """Return the systems of all formats for a ternary estimate's phase."""
    return [_beside(form, ternary, inputs, values, area or TableArea(values)) for form in FORMATS]


def _beside(
    form: str, ternary: Estimate, inputs: Inputs, values: Values, area: AreaModel
) -> Comparison:
    title = FORMATS[form].title
    system = opponent_system(ternary.system, form)
    try:
        lanes = estimate(system, ternary.phase, values, area)
        ratio = area.mm2(ternary.system.engine) / area.mm2(system.engine)
    except TernError as error:
        lacking = sorted(key for key in _needed(form) if key not in values)
        if not lacking:
            raise
        return Comparison(form=form, title=title, missing=str(error))
    speed = Fraction(max(1, round(ratio * AREA_STEPS)), AREA_STEPS)
    scaled = dataclasses.replace(system, speed=speed)
    return Comparison(
        form=form,
        title=title,
        lanes=lanes,
        area=estimate(scaled, ternary.phase, values, area),
        roof=memory_roof(lanes, values),
    )


def opponent_system(system: System, form: str) -> System:
    """Return a system with an array of another format in the ternary one's place."""
    return dataclasses.replace(system, engine=Opponent.beside(form, system.array))


def _needed(form: str) -> list[str]:
    """Return the coefficients that a floating-point format needs."""
    given = FORMATS[form]
    names = (given.multiply.component, given.add)
    return [f"{what}.{name}" for name in names if given.add for what in ("energy", "area")]


def memory_roof(found: Estimate, values: Values) -> float | None:
    """Return the tokens a second at which the memory alone would be busy all the time."""
    if "memory.bandwidth" not in values:
        return None
    return values["memory.bandwidth"] * 1e9 / found.bytes_per_token


def linear_energy(found: Estimate) -> Energy:
    """Return the energy of the blocks' linear layers."""
    energy = Energy()
    for each in found.kinds:
        if each.kind in ("attention linears", "mlp linears"):
            energy += each.energy
    return energy


def _linear_bytes(found: Estimate) -> int:
    return sum(
        each.weight_bytes
        for each in found.kinds
        if each.kind in ("attention linears", "mlp linears")
    )


def ratios(ternary: Estimate, fp16: Estimate, values: Mapping[str, float]) -> Ratios:
    """Return FP16 over ternary, from the figure that is quoted to the whole token."""
    ours, theirs = linear_energy(ternary), linear_energy(fp16)
    return Ratios(
        quoted=(values["energy.fp16_mul"] + values["energy.fp16_add"]) / values["energy.int_add_8"],
        compute=theirs.compute / ours.compute,
        on_chip=(theirs.compute + theirs.activations) / (ours.compute + ours.activations),
        memory=_linear_bytes(fp16) / _linear_bytes(ternary),
        linears=(theirs.total - theirs.static) / (ours.total - ours.static),
        token=fp16.joules_per_token / ternary.joules_per_token,
        time=ternary.tokens_per_second / fp16.tokens_per_second,
    )
