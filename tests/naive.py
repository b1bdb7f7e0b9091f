"""The naive oracle: the arithmetic contract in Python integers and fractions, slow and plain.

It shares no code with the reference: values are exact `Fraction`s, and a float's bits are found by
comparing the exact value with the two neighbours that a float format has.
"""

from fractions import Fraction

#: precision, least exponent, largest exponent of the last place, exponent field width
FORMATS = {"fp32": (24, -149, 104, 8), "fp16": (11, -24, 5, 5)}


def matmul(activations, trits, scale, shift, group_size, output="fp32"):
    """Return the bits of every output, as lists of ints [M][N].

    activations [M][K] and trits [N][K] are ints or finite floats; scale and shift [N][groups].
    """
    return [
        [
            float_bits(exact_row(x, trits[n], scale[n], shift[n], group_size), output)
            for n in range(len(trits))
        ]
        for x in activations
    ]


def exact_row(x, trits, scale, shift, group_size):
    """Return sum_k (scale[g] * trit[k] + shift[g]) * x[k], g = k // group_size, as a Fraction."""
    total = Fraction(0)
    for k in range(len(x)):
        group = 0 if group_size == "row" else k // group_size
        alpha, gamma = Fraction(float(scale[group])), Fraction(float(shift[group]))
        total += (alpha * int(trits[k]) + gamma) * Fraction(float(x[k]))
    return total


def float_bits(value, output):
    """Return the bits of the float nearest to `value`, ties to even."""
    precision, least, greatest, exponent_bits = FORMATS[output]
    sign = 1 << (precision - 1 + exponent_bits)
    if value < 0:
        return sign | float_bits(-value, output)
    if value == 0:
        return 0
    place = least
    while place <= greatest and value >= Fraction(2) ** (place + precision):
        place += 1
    quotient = value / Fraction(2) ** place
    below = quotient.numerator // quotient.denominator
    above = below + 1
    if above - quotient < quotient - below:
        nearest = above
    elif above - quotient > quotient - below:
        nearest = below
    else:
        nearest = below if below % 2 == 0 else above
    if nearest == 1 << precision:
        nearest, place = 1 << (precision - 1), place + 1
    if place > greatest:
        return ((1 << exponent_bits) - 1) << (precision - 1)
    if nearest < 1 << (precision - 1):
        return nearest  # subnormal: the exponent field is 0
    return ((place - least + 1) << (precision - 1)) | (nearest - (1 << (precision - 1)))


def aligned(x, group_size, bits):
    """Return one token's activations [K] as Fractions, each rounded to its group's unit.

    The unit is the power of two in which the group's largest binary exponent (-14 at least) just
    fits `bits` bits, two's complement; not below 2**-24. To nearest, ties away from zero, and
    never beyond the largest integer of that width.
    """
    size = len(x) if group_size == "row" else group_size
    result = []
    for first in range(0, len(x), size):
        group = [Fraction(float(value)) for value in x[first : first + size]]
        unit = max(group_unit(group, bits), Fraction(1, 2**24))
        for value in group:
            count = min((abs(value) / unit + Fraction(1, 2)).__floor__(), 2 ** (bits - 1) - 1)
            result.append(count * unit if value > 0 else -count * unit)
    return result


def group_unit(group, bits):
    """Return the least power of two with 2**(bits - 1) units above every number of the group."""
    exponent = -14
    while any(abs(value) >= Fraction(2) ** (exponent + 1) for value in group):
        exponent += 1
    return Fraction(2) ** (exponent + 2 - bits)
