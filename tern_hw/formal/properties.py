"""All properties that are decided, each with its block and the size it is decided at."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from tern_hw.config import Activation, ArrayConfig, OutputFormat, Packing
from tern_hw.flows.smt import Method
from tern_hw.formal import arithmetic, registers, streams, whole
from tern_hw.formal.harness import Property
from tern_hw.gateware.array import TernaryArray
from tern_hw.gateware.convert import ActivationConverter
from tern_hw.gateware.counters import Counters
from tern_hw.gateware.credit import CreditCounter
from tern_hw.gateware.decode import TritDecoder
from tern_hw.gateware.frame import PacketGate
from tern_hw.gateware.lanes import LaneMask
from tern_hw.gateware.registers import RegisterFile
from tern_hw.gateware.results import ResultUnit
from tern_hw.gateware.rounder import Rounder
from tern_hw.gateware.scale import ScaleShift
from tern_hw.gateware.tree import AdderTree

__all__ = ["properties"]

#: The whole array, as small as the mutation run's.
ARRAY = ArrayConfig(lanes=8, rows=2, group_size=16, packing=Packing.BASE3, max_k=100, max_n=60)
SMALL: dict[str, Any] = {"lanes": 8, "rows": 1, "group_size": "row", "max_k": 64, "max_n": 64}


def small(**fields: Any) -> ArrayConfig:
    """Return a configuration that a solver takes."""
    return ArrayConfig(**SMALL | fields)


@dataclass(frozen=True, kw_only=True)
class NarrowConfig(ArrayConfig):
    """A configuration whose activations have fewer bits than any port has."""

    narrow_bits: int = 8

    @property
    def fixed_bits(self) -> int:
        return self.narrow_bits


def properties() -> list[Property]:
    """Return all properties, block by block."""
    return [
        *_decoders(),
        *_trees(),
        *_converters(),
        *_scales(),
        *_rounders(),
        *_streams(),
        *_registers(),
        *_arrays(),
    ]


def _decoders() -> list[Property]:
    found = []
    for packing in Packing:
        found.append(
            Property(
                block=f"decoder, {packing}, 8 lanes",
                text="every byte decodes as the table says; an illegal one is 0 and flagged",
                build=partial(TritDecoder, small(packing=packing)),
                harness=arithmetic.DecoderTable,
                method=Method.PIPELINE,
            )
        )
    for group, where in (("row", "8 lanes"), (4, "8 lanes, 2 segments")):
        found.append(
            Property(
                block=f"lane mask, {where}",
                text="lanes of the step's segment count, in a row's last beat those below K",
                build=partial(LaneMask, small(group_size=group)),
                harness=arithmetic.LanesOfStep,
                method=Method.INDUCTION,
                cycles=1,
            )
        )
    return found


def _trees() -> list[Property]:
    found = []
    for lanes, bits, quick in ((8, 4, True), (13, 3, False), (8, 8, False), (64, 2, False)):
        build = partial(AdderTree, NarrowConfig(**SMALL | {"lanes": lanes}, narrow_bits=bits))
        found.append(
            Property(
                block=f"tree, {lanes} lanes, {bits} bits",
                text="total + carry is the sum of trit * activation, for all of both",
                build=build,
                harness=arithmetic.TreeSum,
                method=Method.PIPELINE,
                quick=quick,
            )
        )
    return found


def _converters() -> list[Property]:
    found = []
    for activation in Activation:
        build = partial(ActivationConverter, small(activation=activation))
        found.append(
            Property(
                block=f"converter, {activation}, 8 lanes",
                text="every activation becomes its integer; inf and NaN are flagged",
                build=build,
                harness=arithmetic.ConverterTable,
                method=Method.PIPELINE,
                quick=activation is Activation.INT8,
            )
        )
    return found


#: Products of scale and shift at once, and how that is called.
TURNS = ((2, ""), (1, " in turn"))


def _scales() -> list[Property]:
    # A constant exponent makes the shift a wiring; all 32 together are every binary16.
    configs = [(small(max_k=1, products=products), turn) for products, turn in TURNS]
    return [
        Property(
            block=f"scale and shift{turn}, {factor}",
            text=f"a row is {factor} * {name}: of one group of 3 bits, of two of 1 bit; NaN, too",
            build=partial(ScaleShift, config),
            harness=arithmetic.ExactScale,
            method=Method.PIPELINE,
            cycles=arithmetic.cycles_before(config),
            cases=tuple(
                {"factor": factor, "exponent": at, "bits": bits, "groups": groups}
                for at in range(32)
                for bits, groups in ((3, 1), (1, 2))
            ),
            quick=False,
        )
        for config, turn in configs
        for factor, name in (("scale", "S"), ("shift", "X"))
    ]


def _rounders() -> list[Property]:
    found = []
    for activation in Activation:
        for output in OutputFormat:
            config = small(max_k=1, activation=activation, output=output)
            build = partial(Rounder, config)
            found.append(
                Property(
                    block=f"rounder, {config.accumulator_bits} bits to {output}",
                    text="the result is the nearest, ties to even; overflow, subnormals, NaN",
                    build=build,
                    harness=arithmetic.NearestEven,
                    method=Method.PIPELINE,
                    quick=config.result_bits == 16 and activation is Activation.INT8,
                )
            )
    return found


def _streams() -> list[Property]:
    found = [
        Property(
            block="packet gate",
            text="each beat up to TLAST is consumed once; surplus is discarded, faults flagged",
            build=PacketGate,
            harness=streams.PacketFrame,
            method=Method.PDR,
        )
    ]
    places, rows = ARRAY.result_places, ARRAY.rows
    of_the_array = ((ARRAY.scale_places, 0, 1), (places, 0, 1), (places, places, rows))
    for limit, initial, cost in ((13, 0, 1), (20, 20, 4), *of_the_array):
        build = partial(CreditCounter, limit=limit, initial=initial, cost=cost)
        found.append(
            Property(
                block=f"credits, {limit} places, {cost} a claim",
                text="backed exactly where gifts less claims cover a claim; never beyond the limit",
                build=build,
                harness=streams.CreditLaw,
                method=Method.PDR,
            )
        )
    results = partial(ResultUnit, small(rows=2, max_k=1), depth=6)
    found.append(
        Property(
            block="results, 2 rows, 6 places",
            text="results leave in order, each once, unchanged while they wait, the last marked",
            build=results,
            harness=streams.ResultOrder,
            method=Method.BOUNDED,
            cycles=14,
            quick=False,
        )
    )
    return found


ANSWERED = "each {} is answered once, within {}; the answer stays until it is taken"
CONTENTS = "N and K read as written, byte by byte; flags stay until a one is written over them"
COUNTS = "each count is that of its events since the last clear, and its turn comes in turn"


def _registers() -> list[Property]:
    build = partial(RegisterFile, small())
    within = f"{registers.READ_CYCLES} cycles"
    found = []
    for words, text, harness, method, cycles in (
        (
            "writes",
            ANSWERED.format("write", "a cycle"),
            registers.WriteAnswers,
            Method.INDUCTION,
            3,
        ),
        ("reads", ANSWERED.format("read", within), registers.ReadAnswers, Method.PDR, 0),
        ("contents", CONTENTS, registers.RegisterMemory, Method.PDR, 0),
    ):
        found.append(
            Property(
                block=f"registers, {words}",
                text=text,
                build=build,
                harness=harness,
                method=method,
                cycles=cycles,
            )
        )
    found.append(
        Property(
            block="counters, 5 of 32 bits",
            text=COUNTS,
            build=partial(Counters, 5),
            harness=registers.CountLaw,
            method=Method.INDUCTION,
            cycles=14,
        )
    )
    return found


def _arrays() -> list[Property]:
    build = partial(TernaryArray, ARRAY)
    found = []
    for words, text, harness, cycles in (
        (
            "counters",
            "a counter read again and again goes up by 1 a cycle at most, or starts anew",
            whole.CounterSteps,
            18,
        ),
        ("results", "a result that waits stays, unchanged, but for an abort", whole.ResultStall, 3),
    ):
        found.append(
            Property(
                block=f"array, {words}",
                text=text,
                build=build,
                harness=harness,
                method=Method.INDUCTION,
                cycles=cycles,
                quick=False,
            )
        )
    return found
