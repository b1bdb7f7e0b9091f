"""Where the multiply-add's product and accumulator stand, in one fixed-point number."""

from dataclasses import dataclass

from tern_hw.config import OutputFormat

__all__ = ["HALF_BITS", "PRODUCT_BITS", "WINDOWS", "Window"]

#: Bits of a binary16 significand, and of the product of two.
HALF_BITS, PRODUCT_BITS = 11, 22


@dataclass(frozen=True)
class Window:
    """Places of the product and of the accumulator's significand in one fixed-point number.

    The product stands `low` bits above the end, and the significand at most `gap` bits above the
    product. `low` is what the result's last place needs below the least product that may lose
    bits of the accumulator. With `gap` the significand of exponent e_c stands highest where
    e_a + e_b + `offset` = e_c, and the offset is one that costs no adder.
    """

    low: int
    gap: int
    offset: int

    def bits(self, precision: int) -> int:
        return precision + self.gap + PRODUCT_BITS + self.low


#: binary16: a product may have ten leading zeros (one operand subnormal). binary32: operands
#: are normalised first, as the window would be wider by 21 bits else.
WINDOWS = {
    OutputFormat.FP16: Window(low=2, gap=3, offset=0),
    OutputFormat.FP32: Window(low=5, gap=6, offset=128),
}
