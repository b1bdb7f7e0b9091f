"""`tern_hw.simulate`: whole layers at compiled speed, equal to the reference, or told why not."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from sim.runner import Simulator, run
from sim.settings import RANDOM_JOBS_VARIABLE
from sim.stimuli import ADVERSARIAL, Layer, adversarial_layer, random_activations, random_layer
from tern_hw.config import Activation, ArrayConfig
from tern_hw.errors import TernError
from tern_hw.flows import harness
from tern_hw.flows.wrapper import wrapper_verilog
from tern_hw.simulation import simulate_layer
from tests.simulations import all_choices, six_choices, small, verilog_file

ROOT = Path(__file__).parent.parent
SMALL = small(8, 2, 16, "base3")
#: Idle and backpressure of the runs.
STALLS = [(0.0, 0.0), (0.4, 0.0), (0.0, 0.6), (0.3, 0.3)]
LAYER = "model.layers.0.mlp.up_proj"


def check(layer: Layer, config: ArrayConfig, *, tokens: int = 1, **stalls) -> int:
    """Simulate a layer, which must be right in every bit and cycle; return the results compared."""
    rng = np.random.default_rng(7)
    more = [random_activations(rng, layer.k, config) for _ in range(tokens - 1)]
    activations = np.stack([layer.activations, *more])
    result = simulate_layer(layer.matrix(config), activations, config, **stalls)
    assert result.complaints == ()
    assert result.mismatches == 0
    assert result.outputs.shape == (tokens, layer.n)
    return result.outputs.size


def sweep(config: ArrayConfig, *, seed: int = 0) -> int:
    """Run shapes at every edge, every adversarial case, and every stall pattern."""
    rng = np.random.default_rng([seed, config.lanes])
    lanes, rows, results = config.lanes, config.rows, 0
    ks = sorted({1, lanes - 1, lanes, 2 * lanes + 1, config.max_k})
    ks = [k for k in ks if k <= config.max_k]
    ns = sorted({min(n, config.max_n) for n in (1, rows, 4 * rows + 1)})
    shapes = zip(itertools.product(ns, ks), itertools.cycle(STALLS[1:]), strict=False)
    for (n, k), (idle, backpressure) in shapes:
        layer = random_layer(rng, n, k, config)
        results += check(layer, config, tokens=2)
        results += check(layer, config, idle=idle, backpressure=backpressure, seed=seed)
    n, k = min(5 * rows + 1, config.max_n), min(3 * lanes + 3, config.max_k)
    for index, name in enumerate(ADVERSARIAL):
        layer = adversarial_layer(name, rng, n, k, config)
        idle, backpressure = STALLS[index % len(STALLS)]
        results += check(layer, config, idle=idle, backpressure=backpressure, seed=seed)
    return results


# ------------------------------------------------------------------------- function


@pytest.mark.parametrize(
    "config",
    [
        small(8, 1, "row", "fp16", "half"),
        small(24, 3, 48, "base3"),
        small(8, 4, 1),
        ArrayConfig(lanes=64, rows=4, max_k=640),
        ArrayConfig(lanes=8, rows=2, group_size="row", packing="base3", max_k=1, max_n=1),
    ],
    ids=lambda config: config.name,
)
def test_shapes_and_adversarial_cases(config):
    assert sweep(config) > 10


@pytest.mark.parametrize(("idle", "backpressure"), STALLS)
def test_stalls_cost_cycles_and_no_bits(idle, backpressure):
    rng = np.random.default_rng(2)
    layer = random_layer(rng, 60, 100, SMALL)
    activations = np.stack([random_activations(rng, 100, SMALL) for _ in range(3)])
    result = simulate_layer(
        layer.matrix(SMALL), activations, SMALL, idle=idle, backpressure=backpressure, seed=5
    )
    assert result.complaints == ()
    assert len(result.cycles) == 3
    # Every cycle beyond the formula is one in which the array waited for somebody.
    for job, cycles in enumerate(result.cycles):
        waited = sum(counts[job] for counts in result.stalls.values())
        assert result.expected_cycles <= cycles <= result.expected_cycles + waited
    assert bool(sum(result.stalls["weight"])) == bool(idle)
    assert bool(sum(result.stalls["result"])) == bool(backpressure)


def test_same_seed_same_cycles():
    layer = random_layer(np.random.default_rng(3), 20, 50, SMALL)
    cycles = [
        simulate_layer(
            layer.matrix(SMALL), layer.activations[None], SMALL, idle=0.5, seed=seed
        ).cycles
        for seed in (1, 1, 2)
    ]
    assert cycles[0] == cycles[1] != cycles[2]


def test_progress_adds_up_to_all_results():
    layer = random_layer(np.random.default_rng(4), 20, 50, SMALL)
    told: list[int] = []
    simulate_layer(
        layer.matrix(SMALL), np.stack([layer.activations] * 3), SMALL, progress=told.append
    )
    assert told[0] == 0
    assert sum(told) == 60


def bad_activations(dtype, shape):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("activations", "options", "sentence"),
    [
        (bad_activations(np.float32, (1, 50)), {}, r"activations must be int8 .*not float32"),
        (bad_activations(np.int8, (1, 49)), {}, r"shape \[M, 50\], not int8 \[1, 49\]"),
        (bad_activations(np.int8, (50,)), {}, r"shape \[M, 50\], not int8 \[50\]"),
        (bad_activations(np.int8, (0, 50)), {}, r"shape \[M, 50\], not int8 \[0, 50\]"),
        ([[0] * 50], {}, r"activations must be int8"),
        (None, {"idle": 1.0}, r"idle must be a probability from 0 to 0.99, not 1.0"),
        (None, {"idle": float("nan")}, r"idle must be .*, not nan"),
        (None, {"backpressure": -0.1}, r"backpressure must be .*, not -0.1"),
        (None, {"seed": -1}, r"seed must be an integer from 0 to 4294967295, not -1"),
        (None, {"seed": 1.5}, r"seed must be an integer .*, not 1.5"),
    ],
)
def test_bad_operands_are_refused(activations, options, sentence):
    layer = random_layer(np.random.default_rng(4), 20, 50, SMALL)
    if activations is None:
        activations = layer.activations[None]
    with pytest.raises(TernError, match=sentence):
        simulate_layer(layer.matrix(SMALL), activations, SMALL, **options)


def test_group_that_does_not_fit_is_refused():
    other = small(8, 2, 32)
    layer = random_layer(np.random.default_rng(4), 20, 50, other)
    with pytest.raises(TernError, match=r"group_size must be the array's 16, not 32"):
        simulate_layer(layer.matrix(other), layer.activations[None], SMALL)


def test_nonfinite_activations_are_refused():
    config = small(8, 2, 16, "fp16")
    layer = random_layer(np.random.default_rng(4), 20, 50, config)
    layer.activations[3] = np.nan
    with pytest.raises(TernError, match=r"activations must be finite"):
        simulate_layer(layer.matrix(config), layer.activations[None], config)


@pytest.mark.usefixtures("fresh_builds")
@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        (
            ".m_axis_result_tdata(m_axis_result_tdata)",
            ".m_axis_result_tdata(m_axis_result_tdata_array)",
            r"result \d+ of token 0 must be .*, not ",
        ),
        (
            ".m_axis_result_tlast(m_axis_result_tlast)",
            ".m_axis_result_tlast()",
            r"the results of job 0 must have TLAST on the last alone \(1 times\)",
        ),
        (
            ".s_axis_weight_tvalid(now_s_axis_weight_tvalid)",
            ".s_axis_weight_tvalid(now_s_axis_weight_tvalid & tick)",
            r"must end within|must take exactly",
        ),
    ],
    ids=["results", "tlast", "cycles"],
)
def test_wrong_array_is_told(monkeypatch, right, wrong, complaint):
    """A fault between the array and the harness shows in what the harness says."""

    def sabotaged(config: ArrayConfig) -> str:
        text = wrapper_verilog(config)
        assert right in text
        more = (
            f"  wire [{config.result_bits - 1}:0] m_axis_result_tdata_array;\n"
            "  reg tick = 0;\n  always @(posedge clk) tick <= ~tick;\n"
        )
        if "tdata_array" in wrong:
            more += "  assign m_axis_result_tdata = m_axis_result_tdata_array ^ 1;\n"
        if "tlast()" in wrong:
            more += "  assign m_axis_result_tlast = 0;\n"
        return text.replace(right, wrong).replace("endmodule", more + "endmodule")

    monkeypatch.setattr(harness, "wrapper_verilog", sabotaged)
    config = small(8, 1, "row")
    layer = random_layer(np.random.default_rng(5), 9, 40, config)
    try:
        result = simulate_layer(layer.matrix(config), layer.activations[None], config)
        told = "\n".join(result.complaints)
    except harness.HangError as hang:
        told = str(hang)
    assert told
    assert re.search(complaint, told), told


# ------------------------------------------------------------------------ long runs


@pytest.mark.slow
def test_twenty_times_as_fast_as_cocotb(tmp_path, record_property):
    """Both drive the same Verilog with the same kind of jobs; start-up and build are left out."""
    config = ArrayConfig(lanes=64, rows=4, max_k=1024, max_n=2048)
    report = run(
        verilog_file(config, tmp_path),
        config,
        Simulator.VERILATOR,
        tmp_path / "run",
        modules=["sim.arithmetic_tests"],
        environment={RANDOM_JOBS_VARIABLE: "40"},
    )
    assert report.failures == {}
    cocotb_rate = report.cycles / report.test_seconds
    rng = np.random.default_rng(1)
    layer = random_layer(rng, 2048, 1024, config)
    activations = np.stack([random_activations(rng, 1024, config) for _ in range(20)])
    result = simulate_layer(layer.matrix(config), activations, config, idle=0.2, backpressure=0.2)
    assert result.complaints == ()
    ratio = result.cycles_per_second / cocotb_rate
    text = f"cocotb {cocotb_rate:,.0f}, harness {result.cycles_per_second:,.0f} cycles/s"
    record_property("simulation speed", f"{config.name}: {text}, {ratio:.0f} times")
    print(text)
    assert ratio >= 20


def ids(configs: list[ArrayConfig]) -> list[str]:
    return [config.name for config in configs]


#: All 24 combinations where a build takes seconds; of six with each pair of choices, five at two
#: widths where it takes a minute.
NARROW = [
    *all_choices(12, 3, max_k=63, max_n=1000),
    *six_choices(16, 16, max_k=83, max_n=1000)[2::2],
    *six_choices(64, 4, max_k=323, max_n=1000)[1::2],
]


@pytest.mark.slow
@pytest.mark.parametrize("config", NARROW, ids=ids(NARROW))
def test_every_choice_up_to_64_lanes(config):
    assert sweep(config) > 100


#: lanes x rows = 1024: many rows, and as many lanes as there may be.
WIDE = [
    six_choices(256, 4, max_k=1027, max_n=1000)[1],
    six_choices(1024, 1, max_k=4099, max_n=1000)[5],
]


@pytest.mark.slow
@pytest.mark.parametrize("config", WIDE, ids=ids(WIDE))
def test_full_width(config):
    assert sweep(config) > 100


@pytest.mark.slow
@pytest.mark.parametrize("activation", Activation)
def test_long_random_layers(activation):
    """Layers of real sizes, K = 576 and 1536 as in the demo's model."""
    config = ArrayConfig(lanes=64, rows=4, activation=activation)
    rng = np.random.default_rng(9)
    for n, k in ((1536, 576), (576, 1536), (191, 4096)):
        check(random_layer(rng, n, k, config), config, tokens=4)
        check(random_layer(rng, n, k, config), config, tokens=2, idle=0.1, backpressure=0.1)
