"""What a kernel is called with: numbers, most of them addresses, in the places that stand here.

Compiled functions of other files hold these places as they were when they were compiled: who
changes one touches `loops.py` and `activations.py`, too.
"""

from typing import Final

from numba import types

__all__ = [
    "ACTIVE",
    "BATCHES",
    "COLUMN_BYTES",
    "FIELDS",
    "GROUPS",
    "GROUP_INPUTS",
    "KERNEL",
    "NUMBERS",
    "OUT",
    "PAIRS",
    "ROW",
    "RUN",
    "SCALE_LIMIT",
    "SINGLE",
    "STARTS",
    "STREAM",
    "STRIDE",
    "TOTALS",
    "UNITS",
    "WORDS",
]

#: A kernel as C sees it: a job's numbers, its first block, and the end of its blocks.
KERNEL: Final = types.void(types.CPointer(types.int64), types.int64, types.int64)

# Of the matrix.
STREAM: Final = 0  #: uint8 [P, stride]
STARTS: Final = 1  #: int64 [groups + 1]: first step of each group, and the end
UNITS: Final = 2  #: float64 [32 * P], the unit of each row's integer scales; 0: scales are binary16
STRIDE: Final = 3  #: bytes of a block
GROUPS: Final = 4
ROW: Final = 5  #: 32 * P
GROUP_INPUTS: Final = 6  #: inputs of a full group
FIELDS: Final = 7  #: codes of a byte
SCALE_LIMIT: Final = 8  #: see `layout.KernelMatrix`
COLUMN_BYTES: Final = 9  #: of words, totals, pairs and active, for one column
# Of the activations and the result.
WORDS: Final = 10  #: int32 [steps by group, batches, fields, columns]: four activations a word
TOTALS: Final = 11  #: int32 [groups, batches, columns, 2]: -X and X * 2**16
PAIRS: Final = 12  #: int32 [batches, pairs, columns]: X of two groups in 16 bits each
OUT: Final = 13  #: float64, or float32 where SINGLE is set, [batches * columns, row]
BATCHES: Final = 14
RUN: Final = 15  #: groups, an even number, whose sums of integer scales stay within 32 bits
SINGLE: Final = 16  #: not 0: sums are rounded to float32
ACTIVE: Final = 17  #: int32 [groups, batches]: bit c is set where column c is not all 0
#: How many numbers a job has.
NUMBERS: Final = 18
