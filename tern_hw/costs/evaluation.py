"""What a phase of a model takes on a system: time and energy of every kind of work."""

import dataclasses
import math
from collections import Counter
from fractions import Fraction
from typing import Final

from tern_hw.costs.actions import Action
from tern_hw.costs.area import AreaModel, Engine, TableArea
from tern_hw.costs.counts import Counts, count_matmul
from tern_hw.costs.energy import energy_pj
from tern_hw.costs.opponents import Opponent, count_opponent
from tern_hw.costs.system import STACK, Energy, Estimate, KindCost, System
from tern_hw.costs.technology import Values
from tern_hw.costs.workload import KINDS, WIDE_BYTES, Phase, Work

__all__ = ["count_on", "estimate"]

#: Register bits of a multiply-accumulate outside an array: product and sum in fp32, an operand.
MAC_REGISTER_BITS: Final = 80


def count_on(engine: Engine, m: int, n: int, k: int) -> Counts:
    """Count a product on an array of whatever format."""
    if isinstance(engine, Opponent):
        return count_opponent(engine, m, n, k)
    return count_matmul(engine, m, n, k)


def estimate(
    system: System, phase: Phase, values: Values, area: AreaModel | None = None
) -> Estimate:
    """Return what a phase of a model takes on a system.

    Parameters
    ----------
    system : System
        An array takes the blocks' linear layers; one of a floating-point format takes lm_head
        too, any other leaves it to the companion, which does all the rest.
    phase : Phase
    values : Values
        Numbers of the coefficients (`Inputs.values`).
    area : AreaModel, optional
        For static energy; by the technology's table if None.

    Returns
    -------
    Estimate
        Layers follow each other; within one, computing and fetching overlap.
    """
    banks = 0.0 if "memory.bandwidth" in values else _banks_mm2(system, phase, values)
    mm2 = system.area_mm2(area or TableArea(values)) + banks
    by_kind: dict[str, list[KindCost]] = {}
    for work in phase.works:
        by_kind.setdefault(work.kind, []).append(_cost(system, work, values))
    leak_pj_per_cycle = mm2 * values["static.power"] / system.clock_mhz * 1e3
    kinds = tuple(
        _with_static(_merged(by_kind[kind]), leak_pj_per_cycle) for kind in KINDS if kind in by_kind
    )
    return Estimate(
        system=system, phase=phase, kinds=kinds, area_mm2=mm2, banks_mm2=banks, stack=_stack(kinds)
    )


def _engine_of(system: System, work: Work) -> Engine:
    """Return what does a product; an array of a floating-point format takes the head too."""
    wide = isinstance(system.engine, Opponent) and system.engine.format.add is not None
    return system.engine if work.ternary or wide else system.companion


def _banks_mm2(system: System, phase: Phase, values: Values) -> float:
    """Return the area of memory on the chip that holds all weights, tables and the cache."""
    model = phase.model
    stored = WIDE_BYTES * (model.small_parameters + phase.batch * phase.context * model.kv_all)
    if not model.tied:
        stored += WIDE_BYTES * model.vocabulary * model.embedding
    for work in phase.works:
        if work.linear is not None:
            layer = work.linear
            counts = count_on(_engine_of(system, work), 1, layer.n, layer.k)
            stored += layer.count * counts.streamed_bytes
    return 8 * stored * values["area.sram_bit"] / 1e6


def _cost(system: System, work: Work, values: Values) -> KindCost:
    if work.linear is not None:
        return _linear_cost(system, work, values)
    return _float_cost(system, work, values)


def _linear_cost(system: System, work: Work, values: Values) -> KindCost:
    """Return what the layers of one shape take."""
    assert work.linear is not None
    layer = work.linear
    engine = _engine_of(system, work)
    own = engine is system.engine
    counts = count_on(engine, work.tokens, layer.n, layer.k)
    speed = system.speed if own else Fraction(1)
    window = counts.weight_window_cycles / speed
    served = min(system.reuse, counts.m)
    fetches = -(-counts.m // served)
    job_bytes = counts.streamed_bytes // counts.m
    rate = system.bytes_per_cycle(values)
    late = 0 if rate is None else math.ceil(job_bytes / rate - served * window)
    stalls = fetches * max(0, late)
    compute, memory = energy_pj(counts.actions, values)
    fetch = 8 * fetches * job_bytes * values["memory.energy"]
    times = layer.count
    return KindCost(
        kind=work.kind,
        ternary=work.ternary and not isinstance(system.engine, Opponent),
        macs=times * counts.macs,
        cycles=times * math.ceil(counts.cycles / speed),
        stall_cycles=times * stalls,
        weight_bytes=times * fetches * job_bytes,
        kv_bytes=0,
        other_bytes=0,
        energy=Energy(compute=times * compute, weights=times * fetch, activations=times * memory),
        bound="weights" if stalls else "compute",
    )


def _float_cost(system: System, work: Work, values: Values) -> KindCost:
    """Return what attention, glue or embedding takes, on the companion unit."""
    cycles = math.ceil(work.macs / system.float_macs)
    cycles += math.ceil((work.muls + work.adds) / system.float_macs)
    moved = work.kv_bytes + work.other_bytes
    rate = system.bytes_per_cycle(values)
    stalls = 0 if rate is None else max(0, math.ceil(moved / rate) - cycles)
    actions = {
        Action("fp16_mul"): work.macs,
        Action("fp32_add"): work.macs + work.adds,
        Action("fp32_mul"): work.muls,
        Action("register", bits=MAC_REGISTER_BITS): work.macs + work.muls + work.adds,
    }
    compute, _ = energy_pj(actions, values)
    price = 8 * values["memory.energy"]
    late = "KV" if work.kv_bytes else "weights"
    bound = late if stalls else "compute" if work.macs else "glue"
    return KindCost(
        kind=work.kind,
        ternary=False,
        macs=work.macs,
        cycles=cycles,
        stall_cycles=stalls,
        weight_bytes=0,
        kv_bytes=work.kv_bytes,
        other_bytes=work.other_bytes,
        energy=Energy(compute=compute, weights=price * work.other_bytes, kv=price * work.kv_bytes),
        bound=bound if cycles or stalls else "none",
    )


def _merged(costs: list[KindCost]) -> KindCost:
    """Return one cost for several of a kind; what sets most of their time bounds them."""
    shares: Counter[str] = Counter()
    energy = Energy()
    for each in costs:
        shares[each.bound] += each.cycles + each.stall_cycles
        energy += each.energy
    sums = {
        name: sum(getattr(each, name) for each in costs)
        for name in ("macs", "cycles", "stall_cycles", "weight_bytes", "kv_bytes", "other_bytes")
    }
    bound = shares.most_common(1)[0][0]
    return dataclasses.replace(costs[0], energy=energy, bound=bound, **sums)


def _with_static(cost: KindCost, pj_per_cycle: float) -> KindCost:
    static = pj_per_cycle * (cost.cycles + cost.stall_cycles)
    return dataclasses.replace(cost, energy=dataclasses.replace(cost.energy, static=static))


def _stack(kinds: tuple[KindCost, ...]) -> dict[str, float]:
    """Return the energy by the names of `STACK`: the blocks' linear layers, KV, the rest."""
    stack = dict.fromkeys(STACK, 0.0)
    for each in kinds:
        energy = each.energy
        stack["kv"] += energy.kv
        stack["static"] += energy.static
        if each.kind in ("attention linears", "mlp linears"):
            stack["compute"] += energy.compute
            stack["weights"] += energy.weights
            stack["activations"] += energy.activations
        else:
            stack["other"] += energy.compute + energy.weights + energy.activations
    return stack
