"""`ArrayConfig`: the one parameter object of the accelerator, with every derived width."""

import dataclasses
import enum
import math
from dataclasses import dataclass
from typing import Any, Final

from tern_hw.config.checks import integer_within, member_of
from tern_hw.config.formats import (
    CHAIN_LANES,
    FP16_FRACTION_BITS,
    FP16_MAX_UNITS,
    Activation,
    Dot,
    GroupSize,
    OutputFormat,
    Packing,
    Weights,
)
from tern_hw.config.naming import module_name
from tern_hw.config.rules import check_together
from tern_hw.config.schedule import job_cycles
from tern_hw.errors import TernError

__all__ = ["ArrayConfig"]

#: Pipeline registers of a binary16 multiply-add, and those of them before its accumulator's loop.
MAC_REGISTERS: Final = 9
MAC_PRODUCT_REGISTERS: Final = 2
#: Bytes of one scale (binary16) and one shift (binary16).
SCALE_PAIR_BYTES: Final = 4


@dataclass(frozen=True, kw_only=True)
class ArrayConfig:
    """Parameters of one array, and the numbers that follow from them.

    With `weights` of binary16 there is no scale stream; sums have the output's format, group size
    and packing stay at their defaults, and `dot` says what the multiply-adds' adders are made of.

    Raises
    ------
    TernError
        If a field is outside its range, or the group does not fit the lanes.
    """

    #: Inputs (trits of one row) consumed in a cycle; 8 to 1024.
    lanes: int = 64
    #: Outputs computed in parallel; 1 to 16.
    rows: int = 4
    #: Format of the activations.
    activation: Activation = Activation.INT8
    #: Inputs per scale and shift: "row", a multiple of lanes, or a divisor of lanes.
    group_size: GroupSize = 128
    #: Bits that fp16 activations keep when aligned within their group, 8 to 40; None keeps all.
    aligned: int | None = None
    #: Trit code on the weight port.
    packing: Packing = Packing.BITS2
    #: Format of the results.
    output: OutputFormat = OutputFormat.FP32
    #: Largest K (inputs of a job) the memories and sums are sized for; 1 to 65536.
    max_k: int = 16384
    #: Largest N (outputs of a job) the counters are sized for; 1 to 1048576.
    max_n: int = 65536
    #: Implementation of the dot product.
    dot: Dot = Dot.TREE
    #: Products of scale and shift that a row computes at once: 2, or 1 in turn.
    products: int = 2
    #: What the weight port carries.
    weights: Weights = Weights.TERNARY

    def __post_init__(self) -> None:
        integer_within("lanes", self.lanes, 8, 1024)
        integer_within("rows", self.rows, 1, 16)
        integer_within("max_k", self.max_k, 1, 65536)
        integer_within("max_n", self.max_n, 1, 1048576)
        integer_within("products", self.products, 1, 2)
        for name, kind in (
            ("activation", Activation),
            ("packing", Packing),
            ("output", OutputFormat),
            ("dot", Dot),
            ("weights", Weights),
        ):
            object.__setattr__(self, name, member_of(name, getattr(self, name), kind))
        check_together(self)

    # ---------------------------------------------------------------- schedule

    @property
    def step_inputs(self) -> int:
        """Inputs of a row consumed in one step: the lanes, or the group where it is smaller."""
        return self.lanes if self.group_size == "row" else min(self.lanes, self.group_size)

    @property
    def segments(self) -> int:
        """Steps (cycles) that one full weight beat takes: the groups within the lanes."""
        return self.lanes // self.step_inputs

    @property
    def group_steps(self) -> int | None:
        """Steps of a full group; None where the group ends with the row."""
        return None if self.group_size == "row" else max(1, self.group_size // self.lanes)

    @property
    def max_chunks(self) -> int:
        """Depth (words of `lanes` activations) of the activation memory."""
        return math.ceil(self.max_k / self.lanes)

    @property
    def max_groups(self) -> int:
        """Depth (words of `sum_bits`) of the memory of group sums."""
        return self.groups(self.max_k)

    def chunks(self, k: int) -> int:
        """Beats of `lanes` inputs that K inputs take."""
        return math.ceil(k / self.lanes)

    def groups(self, k: int) -> int:
        """Groups (scale and shift pairs) of a row of K inputs."""
        return 1 if self.group_size == "row" else math.ceil(k / self.group_size)

    def steps(self, k: int) -> int:
        """Steps of a row block over K inputs."""
        if self.weights is not Weights.TERNARY:
            return k * self.mac_contexts
        return math.ceil(k / self.step_inputs)

    def row_blocks(self, n: int) -> int:
        """Blocks of `block_outputs` outputs that N outputs take."""
        return math.ceil(n / self.block_outputs)

    @property
    def block_outputs(self) -> int:
        """Outputs that are computed together, as one pass over the inputs."""
        if self.weights is Weights.TERNARY:
            return self.rows
        return self.lanes * self.rows * self.mac_contexts

    @property
    def mac_registers(self) -> int:
        """Pipeline registers of a multiply-accumulator."""
        return MAC_REGISTERS

    @property
    def mac_contexts(self) -> int:
        """Outputs that take turns in a multiply-accumulator: the registers of its loop."""
        return MAC_REGISTERS - MAC_PRODUCT_REGISTERS

    @property
    def input_streams(self) -> tuple[str, ...]:
        """Names of the input streams."""
        streams = ("activation", "weight", "scale")
        return streams if self.weights is Weights.TERNARY else streams[:2]

    def weight_beats(self, k: int) -> int:
        """Weight beats of a block of outputs over K inputs."""
        return self.chunks(k) if self.weights is Weights.TERNARY else k * self.mac_contexts

    # ------------------------------------------------------------------ widths

    @property
    def activation_bits(self) -> int:
        """Width of an activation at the port."""
        return 8 if self.activation is Activation.INT8 else 16

    @property
    def fixed_bits(self) -> int:
        """Width of an activation as a two's-complement integer (of 1, or of 2**-24 and more)."""
        if self.aligned is not None:
            return self.aligned
        return 8 if self.activation is Activation.INT8 else FP16_MAX_UNITS.bit_length() + 1

    @property
    def fixed_max(self) -> int:
        """Largest magnitude of an activation, in the unit of its integer."""
        if self.aligned is not None:
            return min(FP16_MAX_UNITS >> self.unit_max, (1 << (self.aligned - 1)) - 1)
        return 128 if self.activation is Activation.INT8 else FP16_MAX_UNITS

    @property
    def unit_max(self) -> int:
        """Largest u where a group's integers count 2**(u - 24); 0 where the unit is fixed."""
        return 0 if self.aligned is None else FP16_MAX_UNITS.bit_length() + 1 - self.aligned

    @property
    def sum_bits(self) -> int:
        """Width of S and X: an exact sum over one group."""
        inputs = self.max_k if self.group_size == "row" else min(self.group_size, self.max_k)
        return (inputs * self.fixed_max).bit_length() + 1

    @property
    def accumulator_bits(self) -> int:
        """Width of the exact sum over a row: K * max|x| * (max|alpha| + max|gamma|)."""
        largest = self.fixed_max << self.unit_max
        return (self.max_k * largest * 2 * FP16_MAX_UNITS).bit_length() + 1

    @property
    def accumulator_fraction_bits(self) -> int:
        """The accumulator's unit is 2**-this."""
        return FP16_FRACTION_BITS * (1 if self.activation is Activation.INT8 else 2)

    @property
    def result_bits(self) -> int:
        """Width of a result."""
        return 32 if self.output is OutputFormat.FP32 else 16

    # ------------------------------------------------------------------- beats

    @property
    def activation_beat_bytes(self) -> int:
        """Bytes of one activation beat: `lanes` activations, lane 0 lowest."""
        return self.lanes * self.activation_bits // 8

    @property
    def row_beat_bytes(self) -> int:
        """Bytes of one row's weights in a weight beat."""
        if self.weights is not Weights.TERNARY:
            return 2 * self.lanes
        return math.ceil(self.lanes / self.packing.digits_per_byte)

    @property
    def illegal_flags(self) -> int:
        """Flags of a row's beat: for two 2-bit fields, which are one LUT4, or a base-3 byte."""
        return self.row_beat_bytes * (2 if self.packing is Packing.BITS2 else 1)

    @property
    def weight_beat_bytes(self) -> int:
        """Bytes of one weight beat: row by row, row 0 lowest."""
        return self.rows * self.row_beat_bytes

    @property
    def scale_beat_bytes(self) -> int:
        """Bytes of one scale beat: per row the scale then the shift, binary16 each."""
        return self.rows * SCALE_PAIR_BYTES

    @property
    def result_beat_bytes(self) -> int:
        """Bytes of one result beat: one output."""
        return self.result_bits // 8

    # ------------------------------------------------------------------ timing

    @property
    def dot_chains(self) -> int:
        """Chains that the lanes are cut into, of nearly the same length."""
        return math.ceil(self.lanes / CHAIN_LANES[self.dot])

    @property
    def chain_cycles(self) -> int:
        """Pipeline registers of a chain: its first two lanes, then a lane a cycle."""
        return math.ceil(self.lanes / self.dot_chains) - 1

    @property
    def tree_levels(self) -> int:
        """Pipeline registers of the dot product over the lanes: of a chain, then of the tree."""
        return self.chain_cycles + math.ceil(math.log2(self.dot_chains))

    @property
    def result_interval(self) -> int:
        """Least cycles between two row blocks: they share one rounder, or one result port."""
        if self.weights is Weights.TERNARY:
            return self.rows
        # The results of a block, and the way of its last one to the port.
        return self.block_outputs + self.latency_cycles + 2

    def load_cycles(self, k: int) -> int:
        """Cycles in which K activations are loaded."""
        return self.steps(k) if self.weights is Weights.TERNARY else self.chunks(k)

    @property
    def load_gap_cycles(self) -> int:
        """Cycles between the last load step and the first compute step."""
        if self.weights is not Weights.TERNARY:
            return 1
        return 1 + self.issue_cycles + self.conversion_cycles

    @property
    def conversion_cycles(self) -> int:
        """Latency of an activation's conversion to an integer."""
        if self.aligned is not None:
            return 6
        return 0 if self.activation is Activation.INT8 else 1

    @property
    def unit_cycles(self) -> int:
        """Latency of finding a group's unit, after its last activation."""
        return 12

    @property
    def issue_cycles(self) -> int:
        """Registers between a beat at its port and the array; a step's place takes the same way."""
        return 1

    @property
    def memory_cycles(self) -> int:
        """Latency of the activation memory: a block RAM's, and its own register's."""
        return 2

    @property
    def decode_cycles(self) -> int:
        """Latency of the trit decoder."""
        return 1 if self.packing is Packing.BITS2 else 2

    @property
    def operand_cycles(self) -> int:
        """Registers between the decoder and the dot product; the activations' is the last."""
        return max(0, self.memory_cycles - self.decode_cycles) + 1

    @property
    def dot_cycles(self) -> int:
        """Latency of a group's dot product, from the packed weights on."""
        return self.decode_cycles + self.operand_cycles + self.tree_levels + 1

    @property
    def result_places(self) -> int:
        """Places for results: those on their way when a block is issued every `rows` cycles."""
        in_flight = self.latency_cycles + self.rows + 2
        return self.rows * (math.ceil(in_flight / self.rows) + 1)

    @property
    def scale_depth(self) -> int:
        """Scale beats that the array keeps: those that steps have claimed, and a few that wait.

        A power of two; a claimed one stays until its dot product comes.
        """
        return 1 << (self._scales_claimed + 3).bit_length()

    @property
    def scale_places(self) -> int:
        """Scale beats that may wait to be claimed."""
        return self.scale_depth - self._scales_claimed

    @property
    def _scales_claimed(self) -> int:
        return self.issue_cycles + self.dot_cycles

    @property
    def scale_cycles(self) -> int:
        """Latency of scale and shift, from a group's dot product to the sum of its row."""
        return 8

    @property
    def queue_cycles(self) -> int:
        """Latency of the result queue: in, out, a register."""
        return 3

    @property
    def rounder_cycles(self) -> int:
        """Latency of the rounder: magnitude, guard, shifts to the first one, round, pack."""
        shifts = (self.accumulator_bits - 2).bit_length()
        return 2 + 1 + (shifts - 1) + 2

    @property
    def latency_cycles(self) -> int:
        """Cycles from a row block's last step to the transfer of its first result.

        Register at the ports, dot product, scale and shift, rounder, result queue; with binary16
        weights a register, the multiply-add, and the way to the result port.
        """
        if self.weights is not Weights.TERNARY:
            return 1 + self.mac_registers + 3
        scaled = self.issue_cycles + self.dot_cycles + self.scale_cycles
        return scaled + self.rounder_cycles + self.queue_cycles

    def job_cycles(self, n: int, k: int) -> int:
        """Return the cycles of one job of N outputs over K inputs when no stream stalls.

        From the accepted start to the last result's transfer, as `Register.CYCLES` counts.
        """
        return job_cycles(self, n, k)

    # ------------------------------------------------------------- description

    @property
    def name(self) -> str:
        """Name of the emitted module, unique among configurations that differ in public fields."""
        return module_name(self)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, as JSON holds them."""
        return {
            field.name: (str(value) if isinstance(value, enum.StrEnum) else value)
            for field in dataclasses.fields(self)
            for value in (getattr(self, field.name),)
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "ArrayConfig":
        """Build a configuration from `as_dict`'s form; an unknown field is refused."""
        known = {field.name for field in dataclasses.fields(cls)}
        for name in fields:
            if name not in known:
                raise TernError(f"configuration field must be one of {sorted(known)}, not {name!r}")
        return cls(**fields)
