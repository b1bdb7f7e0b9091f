"""What a ternary accelerator costs: counted actions times coefficients that have a source.

coefficients   a table of numbers with unit, bounds and source; a file without them is refused
technology     the tables that come with the toolkit, and the inputs of one estimate
actions        what the array's parts do in a step, at a group's end, for a result
counts         how often, in a product: exact, comparable with the counters of the Verilog
opponents      the same for FP16, BF16, INT8 and INT4 arrays of the same schedule
energy         from a table's few points to any width and capacity
area           units counted; the interface of a model fitted to synthesis
models         the shape of a language model, by name or from its config.json
workload       what it does for a token: decode and prefill
system         array, companion, clock, memory: time, energy and bytes, as a stack
comparison     beside the other formats, at equal lanes, area and bandwidth
sensitivity    which coefficient moves the answer most
"""

from tern_hw.costs.area import AreaModel, TableArea
from tern_hw.costs.catalogue import catalogue, open_model
from tern_hw.costs.coefficients import Coefficient, read_table
from tern_hw.costs.comparison import Comparison, Ratios, beside, ratios
from tern_hw.costs.counts import Counts, count_matmul
from tern_hw.costs.evaluation import estimate
from tern_hw.costs.models import Model
from tern_hw.costs.opponents import FORMATS, Opponent, count_opponent
from tern_hw.costs.pace import Pace, PacedJob, paced_job
from tern_hw.costs.sensitivity import Bracket, Swing, bracket, tornado
from tern_hw.costs.system import STACK, Estimate, KindCost, System
from tern_hw.costs.technology import MEMORIES, TECHNOLOGIES, Inputs, Values, load_inputs
from tern_hw.costs.workload import Phase, decode, prefill

__all__ = [
    "FORMATS",
    "MEMORIES",
    "STACK",
    "TECHNOLOGIES",
    "AreaModel",
    "Bracket",
    "Coefficient",
    "Comparison",
    "Counts",
    "Estimate",
    "Inputs",
    "KindCost",
    "Model",
    "Opponent",
    "Pace",
    "PacedJob",
    "Phase",
    "Ratios",
    "Swing",
    "System",
    "TableArea",
    "Values",
    "beside",
    "bracket",
    "catalogue",
    "count_matmul",
    "count_opponent",
    "decode",
    "estimate",
    "load_inputs",
    "open_model",
    "paced_job",
    "prefill",
    "ratios",
    "read_table",
    "tornado",
]
