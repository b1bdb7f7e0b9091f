"""A system, and the form of what it takes: energy by parts, cost by kinds, an estimate."""

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from tern_hw.config import ArrayConfig
from tern_hw.costs.actions import check_counted
from tern_hw.costs.area import AreaModel, Engine
from tern_hw.costs.opponents import FORMATS, MAX_HEAD, Opponent
from tern_hw.costs.technology import Values
from tern_hw.costs.workload import Phase
from tern_hw.errors import TernError

__all__ = ["STACK", "Energy", "Estimate", "KindCost", "System"]

#: Rows of the companion unit, which multiplies what is not ternary.
FLOAT_ROWS: Final = 4
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
        check_counted(self.array)
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
