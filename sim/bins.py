"""Which bins each run must hit, and which all runs together: configurations, shapes, stalls."""

import itertools
from collections.abc import Iterator

from sim.coverage import Bin
from sim.jobs import adversarial_names, streams
from sim.stalls import StallMode
from tern_hw.config import Activation, ArrayConfig, OutputFormat, Packing, Weights

__all__ = [
    "CHANNELS",
    "CYCLES_EQUAL",
    "RESULTS_EQUAL",
    "config_points",
    "input_class",
    "matrix_bins",
    "output_class",
    "run_bins",
]

#: Kinds of group: the whole row, at least the lanes, or segments of them.
GROUP_KINDS = ("row", "multiple", "divisor")
FAULT_MODES = (StallMode.NONE, StallMode.BOTH)
#: Channels of the AXI4-Lite: write address, data and response, read address and data.
CHANNELS = ("aw", "w", "b", "ar", "r")
#: What was compared: results with the reference, and, without stalls, cycles with the formula.
RESULTS_EQUAL = "results bit for bit"
CYCLES_EQUAL = "jobs' cycles and the formula"


def group_kind(config: ArrayConfig) -> str:
    """Return which of `GROUP_KINDS` a configuration has."""
    if config.group_size == "row":
        return "row"
    return "divisor" if config.segments > 1 else "multiple"


def input_class(k: int, config: ArrayConfig) -> str:
    """Return how K relates to the lanes."""
    if k <= config.lanes:
        return "K = lanes" if k == config.lanes else "K < lanes"
    return "K ragged" if k % config.lanes else "K multiple"


def output_class(n: int, config: ArrayConfig) -> str:
    """Return how N relates to the outputs of a block."""
    if n < config.block_outputs:
        return "N < block"
    return "N ragged" if n % config.block_outputs else "N multiple"


def config_points(config: ArrayConfig) -> Iterator[tuple[str, str]]:
    """Yield each pair of a configuration's choices."""
    choices = [config.activation, config.packing, group_kind(config), f"{config.output} out"]
    if config.weights is not Weights.TERNARY:
        choices[1:3] = [f"{config.weights} weights"]
    yield from itertools.combinations((str(choice) for choice in choices), 2)


def matrix_bins() -> set[Bin]:
    """Return what the runs of one simulator must hit together: every pair of choices."""
    choices: tuple[tuple[str, ...], ...] = (
        tuple(Activation),
        tuple(Packing),
        GROUP_KINDS,
        tuple(f"{output} out" for output in OutputFormat),
    )
    pairs = itertools.combinations(choices, 2)
    return {Bin("config", (str(a), str(b))) for one, other in pairs for a in one for b in other}


def run_bins(config: ArrayConfig) -> set[Bin]:
    """Return what every single run must hit."""
    equal = {Bin("equal", (what,)) for what in (RESULTS_EQUAL, CYCLES_EQUAL)}
    by_config = (_job_bins, _stall_bins, _fault_bins)
    return {*equal, *_control_bins(), *(one for bins in by_config for one in bins(config))}


def _job_bins(config: ArrayConfig) -> Iterator[Bin]:
    lanes, block = config.lanes, config.block_outputs
    some_k = (1, lanes, lanes + 1, 2 * lanes)
    inputs = {input_class(k, config) for k in some_k if k <= config.max_k}
    outputs = {output_class(n, config) for n in (1, block, block + 1) if n <= config.max_n}
    for point in itertools.product(inputs, outputs, StallMode):
        yield Bin("shape", tuple(str(part) for part in point))
    cases = (*adversarial_names(config), "back to back", "random")
    for case, mode in itertools.product(cases, StallMode):
        yield Bin("case", (case, str(mode)))
    yield Bin("case", ("N maximal", str(StallMode.NONE)))
    if config.weights is Weights.TERNARY:
        for case in ("magnitudes", "lone_low_bits", "powers_of_two", "beyond the last input"):
            yield Bin("case", (case,))


def _stall_bins(config: ArrayConfig) -> Iterator[Bin]:
    for stream in (*streams(config), "result"):
        yield Bin("starved", (stream,))
        causes = [StallMode.BOTH]
        causes.append(StallMode.BACKPRESSURE if stream == "result" else StallMode.IDLE)
        for mode in causes:
            yield Bin("stall", (stream, "waited", str(mode)))
        yield Bin("stall", (stream, "never waited", str(StallMode.NONE)))
    yield Bin("starved", ("result, a trickle",))


def _fault_bins(config: ArrayConfig) -> Iterator[Bin]:
    ternary = config.weights is Weights.TERNARY
    kinds = ["scale", "code", "many"] if ternary else []
    kinds += [f"{stream} TLAST {when}" for stream in streams(config) for when in ("early", "late")]
    if config.max_chunks == 1:
        # A packet of one beat has no early end.
        kinds.remove("activation TLAST early")
    if ternary and config.activation is Activation.FP16:
        kinds.append("activation")
    for kind, mode in itertools.product(kinds, FAULT_MODES):
        yield Bin("fault", (kind, str(mode)))
    once = ["single beats", "random frames"]
    if ternary:
        once += ["beyond the last row", "every code"]
    once += [f"{stream} cleared while discarding" for stream in streams(config)]
    for kind in once:
        yield Bin("fault", (kind,))


def _control_bins() -> Iterator[Bin]:
    for point in (
        "identity",
        "unmapped",
        "strobes",
        "start while busy",
        "bad shape",
        "sticky errors",
        "counters",
        "DONE stays",
        "abort when idle",
        "start at the end: refused",
        "start at the end: accepted",
        "read in mid-job",
        *(f"{channel} stalls" for channel in CHANNELS),
    ):
        yield Bin("control", (point,))
    for point, mode in itertools.product(("reset in mid-job", "abort in mid-job"), FAULT_MODES):
        yield Bin("control", (point, str(mode)))
