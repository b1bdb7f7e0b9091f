"""The AXI4-Lite registers of an array: addresses, error flags, and what identifies it."""

import enum
from typing import Final

__all__ = ["ARRAY_ID", "REGISTER_VERSION", "ErrorFlag", "Register"]


class Register(enum.IntEnum):
    """Byte offsets of the AXI4-Lite registers (32 bits each)."""

    ID = 0x00  #: ro: `ARRAY_ID`
    VERSION = 0x04  #: ro: `REGISTER_VERSION`
    ARRAY = 0x08  #: ro: lanes [15:0], rows [23:16]; [24] fp16 in, base-3, fp16 out, fp16 weights
    GROUP = 0x0C  #: ro: group size [23:0], 0 where it is the row; `aligned` [31:24]
    MAX_K = 0x10  #: ro
    MAX_N = 0x14  #: ro
    CONTROL = 0x18  #: wo: start [0], abort [1]
    STATUS = 0x1C  #: ro: busy [0], done [1]
    ERRORS = 0x20  #: sticky `ErrorFlag`s; write 1 to clear
    N = 0x24  #: rw: outputs of the next job
    K = 0x28  #: rw: inputs of the next job
    CYCLES = 0x2C  #: ro: from the accepted start to the last result's transfer
    ACTIVATION_STALLS = 0x30  #: ro: cycles in which the array waited for an activation beat
    WEIGHT_STALLS = 0x34  #: ro: ... for a weight beat
    SCALE_STALLS = 0x38  #: ro: ... for a scale beat
    RESULT_STALLS = 0x3C  #: ro: ... for room for results


class ErrorFlag(enum.IntFlag):
    """Sticky faults, each with a defined answer (see the README)."""

    ACTIVATION_NONFINITE = 1 << 0  #: all results of the job are NaN
    SCALE_NONFINITE = 1 << 1  #: that row's result is NaN
    ILLEGAL_CODE = 1 << 2  #: its trits count as 0
    ACTIVATION_TLAST = 1 << 3  #: early: all results NaN; late: the rest is discarded
    WEIGHT_TLAST = 1 << 4  #: early: rows that lack a beat are NaN; late: the rest is discarded
    SCALE_TLAST = 1 << 5  #: as WEIGHT_TLAST
    BAD_SHAPE = 1 << 6  #: N or K is 0 or beyond the maximum: start refused
    START_BUSY = 1 << 7  #: start while a job runs: refused


#: What `Register.ID` reads: "TERN".
ARRAY_ID: Final = 0x5445524E
#: What `Register.VERSION` reads; raised when the ports or registers change.
REGISTER_VERSION: Final = 1
