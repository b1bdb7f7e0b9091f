"""What an array may be chosen by: number formats, codes and implementations, and their widths."""

import enum
from typing import Final, Literal

__all__ = [
    "TARGETS",
    "Activation",
    "Dot",
    "GroupSize",
    "OutputFormat",
    "Packing",
    "Weights",
]

#: Inputs per scale and shift; "row" is one group for the whole row (per channel).
GroupSize = int | Literal["row"]

#: A finite binary16 is an integer multiple of 2**-24 ...
FP16_FRACTION_BITS: Final = 24
#: ... whose magnitude in that unit is at most 65504 * 2**24 = 2047 * 2**29.
FP16_MAX_UNITS: Final = 2047 << 29


class Activation(enum.StrEnum):
    """Number format of an activation at the port."""

    INT8 = "int8"
    FP16 = "fp16"


class Weights(enum.StrEnum):
    """What a weight is: a trit with a scale and shift by group, or a number by itself."""

    TERNARY = "ternary"
    #: binary16, multiplied and added one by one: what the ternary array is compared with.
    FP16 = "fp16"


class Packing(enum.StrEnum):
    """Code of the trits on the weight port: four in a byte, or five."""

    BITS2 = "2bit"
    BASE3 = "base3"

    @property
    def digits_per_byte(self) -> int:
        return 5 if self is Packing.BASE3 else 4


class OutputFormat(enum.StrEnum):
    """Number format of a result: the exact value, rounded once to nearest even.

    With binary16 weights it is the accumulator's, and every multiply-add is rounded to it.
    """

    FP32 = "fp32"
    FP16 = "fp16"


class Dot(enum.StrEnum):
    """Implementation of the dot product; all keep one contract."""

    #: Adder tree; runs on any part.
    TREE = "tree"
    #: Chains of ECP5 carry cells, each of which selects, negates and adds.
    CARRY = "carry"

    @property
    def cell_family(self) -> str | None:
        """Family whose vendor cells the Verilog instantiates; None where it has none."""
        return "ecp5" if self is Dot.CARRY else None

    @classmethod
    def for_target(cls, target: str) -> "Dot":
        """Return the implementation that is smallest on a family of parts."""
        return cls.CARRY if target == "ecp5" else cls.TREE


#: Families of parts that `Dot.for_target` knows.
TARGETS: Final = ("ecp5", "ice40", "xc7")
#: Most lanes of a chain. A lane that begins one costs LUTs for its mask and negation; one that
#: joins it costs the width of the sum so far: 8 is least for 8-bit activations.
CHAIN_LANES: Final = {Dot.TREE: 1, Dot.CARRY: 8}
