"""The configuration that reference, gateware, benches and cost model share.

formats      number formats, codes and implementations to choose from
checks       what a field may hold
rules        which fields go together
naming       the name of the emitted module
schedule     the cycles of a row block and of a job
array        `ArrayConfig`: one array's choices, and every width and cycle count that follows
registers    addresses and flags of the AXI4-Lite registers
named        the configurations whose Verilog is kept in `rtl/`
"""

from tern_hw.config.array import ArrayConfig
from tern_hw.config.formats import (
    FP16_FRACTION_BITS,
    FP16_MAX_UNITS,
    TARGETS,
    Activation,
    Dot,
    GroupSize,
    OutputFormat,
    Packing,
    Weights,
)
from tern_hw.config.named import NAMED_CONFIGS
from tern_hw.config.registers import ARRAY_ID, REGISTER_VERSION, ErrorFlag, Register
from tern_hw.config.rules import ALIGNED_BITS
from tern_hw.config.schedule import weight_window_cycles

__all__ = [
    "ALIGNED_BITS",
    "ARRAY_ID",
    "FP16_FRACTION_BITS",
    "FP16_MAX_UNITS",
    "NAMED_CONFIGS",
    "REGISTER_VERSION",
    "TARGETS",
    "Activation",
    "ArrayConfig",
    "Dot",
    "ErrorFlag",
    "GroupSize",
    "OutputFormat",
    "Packing",
    "Register",
    "Weights",
    "weight_window_cycles",
]
