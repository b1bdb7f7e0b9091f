"""A system's time and energy for a phase of a model: every kind of work, and a stack."""

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from tern_hw.config import ArrayConfig
from tern_hw.costs.actions import Action
from tern_hw.costs.area import AreaModel, Engine, TableArea
from tern_hw.costs.counts import Counts, count_matmul
from tern_hw.costs.energy import energy_pj
from tern_hw.costs.opponents import FORMATS, MAX_HEAD, Opponent, count_opponent
from tern_hw.costs.technology import Values
from tern_hw.costs.workload import KINDS, WIDE_BYTES, Phase, Work
from tern_hw.errors import TernError

__all__ = ["STACK", "Energy", "Estimate", "KindCost", "System", "count_on", "estimate"]

#: Rows of the companion unit, which multiplies what is not ternary.
FLOAT_ROWS: Final = 4
#: Register bits of a multiply-accumulate outside an array: product and sum in fp32, an operand.
MAC_REGISTER_BITS: Final = 80
#: Parts of an estimate's energy.
STACK: Final = ("compute", "weights", "activations", "kv", "other", "static")


@dataclass(frozen=True, kw_only=True)
class System:
    """An array for the linear layers, a unit for the rest, one clock, one memory."""

    engine: Engine
    #: MHz.
    clock_mhz: float
    #: Multiply-accumulates in fp16 a cycle of the companion unit: a multiple of 4 from 32.
    float_macs: int = 64
    #: How many such engines there are, whole or not: other than 1 to compare equal areas.
    speed: Fraction = Fraction(1)
    #: Tokens that a weight serves once it is fetched: 1 in our array; more in an array that keeps
    #: a tile of weights and sums for as many tokens, whose buffers are not counted.
    reuse: int = 1

    def __post_init__(self) -> None:
        number = isinstance(self.clock_mhz, int | float) and math.isfinite(self.clock_mhz)
        if not number or not 0.001 <= self.clock_mhz <= 10_000:
            raise TernError(f"clock must be from 0.001 to 10000 MHz, not {self.clock_mhz}")
        if not isinstance(self.reuse, int) or self.reuse < 1:
            raise TernError(f"reuse must be a positive integer, not {self.reuse!r}")
        macs = self.float_macs
        if not isinstance(macs, int) or macs % FLOAT_ROWS or not 32 <= macs <= 4096:
            raise TernError(
                f"float_macs must be a multiple of {FLOAT_ROWS} from 32 to 4096, not {macs!r}"
            )

    @property
    def array(self) -> ArrayConfig:
        """Shape of the engine."""
        return self.engine.array if isinstance(self.engine, Opponent) else self.engine

    @property
    def companion(self) -> Opponent:
        """The unit for what is not ternary: fp16 products, sums in fp32."""
        array = dataclasses.replace(
            self.array,
            lanes=self.float_macs // FLOAT_ROWS,
            rows=FLOAT_ROWS,
            group_size="row",
            max_n=MAX_HEAD,
        )
        return Opponent(FORMATS["fp16_fp32"], array)

    def bytes_per_cycle(self, values: Values) -> Fraction | None:
        """Return what the memory gives in a cycle; None where it is never late."""
        if "memory.bandwidth" not in values:
            return None
        bandwidth = Fraction(str(round(values["memory.bandwidth"], 9)))
        return bandwidth * 1000 / Fraction(str(self.clock_mhz))

    def area_mm2(self, area: AreaModel) -> float:
        """Return the area of engine and companion."""
        return area.mm2(self.engine) * float(self.speed) + area.mm2(self.companion)


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy in pJ of some work."""

    compute: float = 0.0
    weights: float = 0.0
    activations: float = 0.0
    kv: float = 0.0
    static: float = 0.0

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return self.compute + self.weights + self.activations + self.kv + self.static

    def __add__(self, other: "Energy") -> "Energy":
        names = (each.name for each in dataclasses.fields(Energy))
        return Energy(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class KindCost:
    """What all work of one kind takes."""

    kind: str
    ternary: bool
    macs: int
    #: Cycles without waiting for the memory, and those spent waiting.
    cycles: int
    stall_cycles: int
    #: Bytes from and to the memory.
    weight_bytes: int
    kv_bytes: int
    other_bytes: int
    energy: Energy
    #: What sets the time: "compute", "weights", "KV" or "glue"; "none" where it takes none.
    bound: str

    @property
    def bytes(self) -> int:
        """All bytes from and to the memory."""
        return self.weight_bytes + self.kv_bytes + self.other_bytes


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Time, energy and bytes of a phase on a system."""

    system: System
    phase: Phase
    kinds: tuple[KindCost, ...]
    #: Of array, companion and, where the memory is on the chip, its banks.
    area_mm2: float
    banks_mm2: float
    #: Energy in pJ by the names of `STACK`, of all tokens.
    stack: dict[str, float] = field(default_factory=dict)

    @property
    def cycles(self) -> int:
        """All cycles, waiting included."""
        return sum(each.cycles + each.stall_cycles for each in self.kinds)

    @property
    def seconds(self) -> float:
        """Time of the phase."""
        return self.cycles / (self.system.clock_mhz * 1e6)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all sequences."""
        return self.phase.tokens / self.seconds

    @property
    def joules_per_token(self) -> float:
        """Energy of a token."""
        return sum(self.stack.values()) / self.phase.tokens / 1e12

    @property
    def bytes_per_token(self) -> float:
        """Bytes from and to the memory for a token."""
        return sum(each.bytes for each in self.kinds) / self.phase.tokens

    @property
    def bound(self) -> str:
        """What sets most of the time."""
        shares: Counter[str] = Counter()
        for each in self.kinds:
            shares[each.bound] += each.cycles + each.stall_cycles
        return shares.most_common(1)[0][0]


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
