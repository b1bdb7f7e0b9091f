"""The whole array in Amaranth's simulator: exact results and cycles, an answer to every fault."""

from dataclasses import replace

import numpy as np
import pytest

from tern_hw.config import ArrayConfig, ErrorFlag, OutputFormat, Register
from tern_hw.gateware.array import TernaryArray
from tern_hw.matrix import TernaryMatrix
from tests.gateware.jobs import Bench, read, run_jobs, write
from tests.gateware.layers import job_of, naive_results, random_case, with_beat

SMALL = {"max_k": 64, "max_n": 64}
CONFIGS = [
    ArrayConfig(lanes=8, rows=2, group_size=16, **SMALL),
    ArrayConfig(lanes=8, rows=1, group_size="row", packing="base3", **SMALL),
    ArrayConfig(lanes=12, rows=3, group_size=4, packing="base3", activation="fp16", **SMALL),
    ArrayConfig(lanes=9, rows=4, group_size=27, activation="fp16", output="fp16", **SMALL),
    ArrayConfig(lanes=16, rows=16, group_size=8, output="fp16", **SMALL),
    ArrayConfig(lanes=10, rows=2, group_size="row", activation="fp16", **SMALL),
    ArrayConfig(
        lanes=12, rows=1, group_size=4, activation="fp16", aligned=9, packing="base3", **SMALL
    ),
    ArrayConfig(lanes=8, rows=1, group_size=16, products=1, **SMALL),
    ArrayConfig(lanes=8, rows=2, group_size=24, activation="fp16", aligned=9, products=1, **SMALL),
]
SHAPES = [(4, 16), (1, 1), (5, 20), (3, 64), (7, 17), (40, 8), (17, 9)]
EAGERNESS = [
    {},
    {"idle": 0.5},
    {"backpressure": 0.6},
    {"idle": 0.3, "backpressure": 0.3},
]
FAULTED = ArrayConfig(lanes=8, rows=2, group_size=16, **SMALL)
SEGMENTED = ArrayConfig(lanes=8, rows=2, group_size=4, packing="base3", **SMALL)


def nan(config: ArrayConfig) -> int:
    return 0x7FC00000 if config.output is OutputFormat.FP32 else 0x7E00


def case(config, n, k, seed, **eagerness):
    x, matrix = random_case(config, n, k, np.random.default_rng(seed))
    return job_of(config, x, matrix, **eagerness), naive_results(config, x, matrix)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_results_equal_the_naive_oracle_and_cycles_the_formula(config):
    cases = [
        case(config, n, k, seed, **eagerness)
        for seed, (n, k) in enumerate(SHAPES)
        for eagerness in EAGERNESS
    ]
    outcomes = run_jobs(config, [job for job, _ in cases])
    for (job, expected), outcome in zip(cases, outcomes, strict=True):
        assert outcome.results == expected
        assert outcome.lasts == [0] * (job.n - 1) + [1]
        assert outcome.errors == 0
        if job.idle == 0 and job.backpressure == 0:
            assert outcome.cycles == config.job_cycles(job.n, job.k)
            assert outcome.stalls == (0, 0, 0, 0)
        else:
            assert outcome.cycles >= config.job_cycles(job.n, job.k)
    idle = [o for (job, _), o in zip(cases, outcomes, strict=True) if job.idle == 0.5]
    slow = [o for (job, _), o in zip(cases, outcomes, strict=True) if job.backpressure == 0.6]
    activation, weight, scale, _ = (
        sum(part) for part in zip(*(o.stalls for o in idle), strict=True)
    )
    assert activation
    assert weight
    # Groups that come less often than every other cycle wait for nobody.
    seldom = config.group_size == "row" or config.group_size > config.lanes
    assert scale or seldom or config.rows >= 2 * config.groups(config.max_k)
    assert sum(outcome.stalls[3] for outcome in slow)


def test_stalls_are_counted_for_the_stream_that_waits():
    config = ArrayConfig(lanes=8, rows=1, group_size=8, **SMALL)
    job, expected = case(config, 8, 64, 1)
    gone = {name: replace(job, **{name: []}) for name in ("activation", "weight", "scale")}
    for index, name in enumerate(gone):
        bench = Bench(config, seed=0)
        outcomes = []

        async def host(ctx, bench=bench, name=name, outcomes=outcomes):
            bench.queue(gone[name])
            await ctx.tick().repeat(3)
            await bench.start(ctx, job.n, job.k)
            await ctx.tick().repeat(200)
            rest = {other: [] for other in gone if other != name}
            bench.queue(replace(job, **rest))
            await bench.finish(ctx, job.n, job.k)
            outcomes.append(await bench.outcome(ctx))

        bench.run(host)
        assert outcomes[0].results == expected
        others = [stall for at, stall in enumerate(outcomes[0].stalls) if at != index]
        assert outcomes[0].stalls[index] > 100
        assert others == [0, 0, 0]


@pytest.mark.filterwarnings("ignore::amaranth.UnusedElaboratable")
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_latency_is_the_sum_of_the_blocks(config):
    assert TernaryArray(config).core.latency == config.latency_cycles


def test_minus_one_times_minus_128_is_128():
    config = CONFIGS[0]
    x = np.full(64, -128, np.int8)
    one, zero = np.ones((2, 4), np.float16), np.zeros((2, 4), np.float16)
    matrix = TernaryMatrix.from_digits(np.zeros((2, 64), np.uint8), one, zero, group_size=16)
    (outcome,) = run_jobs(config, [job_of(config, x, matrix)])
    assert outcome.results == [np.float32(64 * 128).view(np.uint32)] * 2


@pytest.mark.parametrize(
    ("activation", "aligned"), [("int8", None), ("fp16", None), ("fp16", 8), ("fp16", 24)]
)
@pytest.mark.parametrize("output", ["fp32", "fp16"])
def test_extreme_sums_fit(activation, aligned, output):
    """All activations, scales and shifts at their largest: no width is a bit too narrow."""
    config = ArrayConfig(
        lanes=8,
        rows=2,
        group_size=16,
        activation=activation,
        aligned=aligned,
        output=output,
        **SMALL,
    )
    top = np.float16(65504)
    extremes = (-128, 127) if activation == "int8" else (-top, top)
    jobs, expected = [], []
    for value in extremes:
        for digit in (0, 2):
            x = np.full(64, value, np.int8 if activation == "int8" else np.float16)
            digits = np.full((2, 64), digit, np.uint8)
            scale = np.full((2, 4), top)
            shift = np.stack([np.full(4, top), np.full(4, -top)])
            matrix = TernaryMatrix.from_digits(digits, scale, shift, group_size=16)
            jobs.append(job_of(config, x, matrix))
            expected.append(naive_results(config, x, matrix))
    assert [outcome.results for outcome in run_jobs(config, jobs)] == expected


# ---------------------------------------------------------------------- faults


def run_each_before_a_clean_job(config, jobs):
    """Return the faulty jobs' outcomes; a clean job after each must be exact, to the cycle."""
    clean, expected = case(config, 3, 33, 99)
    outcomes = run_jobs(config, [job for faulty in jobs for job in (faulty, clean)])
    for after in outcomes[1::2]:
        assert after.results == expected
        assert after.cycles == config.job_cycles(3, 33)
        assert after.errors == 0
    return outcomes[::2]


def replaced(beat, bits, width, place):
    """Return the beat with `width` bits at `place` replaced."""
    return beat & ~(((1 << width) - 1) << place) | bits << place


def test_nonfinite_activation_makes_every_result_nan():
    config = ArrayConfig(lanes=8, rows=2, group_size=16, activation="fp16", **SMALL)
    job, _ = case(config, 5, 20, 3)
    jobs = []
    for at in (0, 7, 12, 19):
        for bits in (0x7C00, 0xFC00, 0x7E01, 0xFFFF):
            beat = replaced(job.activation[at // 8], bits, 16, 16 * (at % 8))
            jobs.append(with_beat(job, "activation", at // 8, beat))
    for outcome in run_each_before_a_clean_job(config, jobs):
        assert outcome.results == [nan(config)] * 5
        assert outcome.errors == ErrorFlag.ACTIVATION_NONFINITE


@pytest.mark.parametrize("activation", ["int8", "fp16"])
def test_activations_beyond_k_are_ignored(activation):
    config = ArrayConfig(lanes=8, rows=2, group_size=4, activation=activation, **SMALL)
    job, expected = case(config, 5, 19, 3)
    width = config.activation_bits
    ones = (1 << 5 * width) - 1
    garbage = replaced(job.activation[2], ones, 5 * width, 3 * width)
    (outcome,) = run_each_before_a_clean_job(config, [with_beat(job, "activation", 2, garbage)])
    assert outcome.results == expected
    assert outcome.errors == 0


def test_nonfinite_scale_or_shift_makes_its_row_nan():
    config = FAULTED
    job, expected = case(config, 4, 20, 4)
    jobs = []
    for half in (0x7C00, 0xFC00, 0x7E00, 0x7FFF):
        for place in (0, 16):
            for group in (0, 1):
                index = 2 + group  # second row block, row 1 of it: n = 3
                beat = replaced(job.scale[index], half, 16, 32 + place)
                jobs.append(with_beat(job, "scale", index, beat))
    for outcome in run_each_before_a_clean_job(config, jobs):
        assert outcome.results == [*expected[:3], nan(config)]
        assert outcome.errors == ErrorFlag.SCALE_NONFINITE


def test_rows_beyond_n_are_ignored():
    config = FAULTED
    job, expected = case(config, 3, 16, 5)
    jobs = []
    for stream in ("weight", "scale"):
        index = len(getattr(job, stream)) - 1
        half = 8 * getattr(config, f"{stream}_beat_bytes") // 2
        garbage = replaced(getattr(job, stream)[index], (1 << half) - 1, half, half)
        jobs.append(with_beat(job, stream, index, garbage))
    for outcome in run_each_before_a_clean_job(config, jobs):
        assert outcome.results == expected
        assert outcome.errors == 0


@pytest.mark.parametrize(("packing", "code", "lost"), [("2bit", 0b11, 1), ("base3", 0x01, 5)])
def test_illegal_code_counts_as_trit_zero(packing, code, lost):
    config = replace(FAULTED, packing=packing)
    x, matrix = random_case(config, 4, 20, np.random.default_rng(6))
    job = job_of(config, x, matrix)
    width = 2 if packing == "2bit" else 8
    jobs, expected = [], []
    # The very first beat; row block 1, chunk 1: inputs 8 ... 15; the last: inputs 16 ... 19.
    for row, beat in ((0, 0), (0, 4), (1, 4), (0, 5), (1, 5)):
        value = replaced(job.weight[beat], code, width, 8 * config.row_beat_bytes * row)
        jobs.append(with_beat(job, "weight", beat, value))
        digits = matrix.digits().copy()
        block, chunk = divmod(beat, 3)
        digits[2 * block + row, 8 * chunk : 8 * chunk + lost] = 1
        mended = TernaryMatrix.from_digits(digits, matrix.scale, matrix.shift, group_size=16)
        expected.append(naive_results(config, x, mended))
    outcomes = run_each_before_a_clean_job(config, jobs)
    assert [outcome.results for outcome in outcomes] == expected
    assert [outcome.errors for outcome in outcomes] == [ErrorFlag.ILLEGAL_CODE] * 5


def test_early_tlast_on_activations_makes_every_result_nan():
    config = FAULTED
    job, _ = case(config, 5, 24, 7)
    jobs = [
        replace(job, tlast={"activation": last}, activation=job.activation[: last + 1])
        for last in (0, 1)
    ]
    for outcome in run_each_before_a_clean_job(config, jobs):
        assert outcome.results == [nan(config)] * 5
        assert outcome.lasts == [0, 0, 0, 0, 1]
        assert outcome.errors == ErrorFlag.ACTIVATION_TLAST


@pytest.mark.parametrize("config", [FAULTED, SEGMENTED], ids=lambda config: config.name)
@pytest.mark.parametrize("stream", ["weight", "scale"])
def test_early_tlast_makes_the_rows_that_lack_a_beat_nan(config, stream):
    flag = ErrorFlag[f"{stream.upper()}_TLAST"]
    eager, *others = EAGERNESS
    whole_job, right = case(config, 7, 21, 8)
    beats = getattr(whole_job, stream)
    per_block = len(beats) // 4
    jobs, expected = [], []
    # At every beat: one eager job, and one of the others in turn.
    for last in range(len(beats) - 1):
        whole = 2 * ((last + 1) // per_block)
        # A beat's place in its block meets each of them, too.
        turn = sum(divmod(last, per_block)) % len(others)
        for eagerness in (eager, others[turn]):
            cut = {"tlast": {stream: last}, stream: beats[: last + 1]}
            jobs.append(replace(whole_job, **cut, **eagerness))
            expected.append(right[:whole] + [nan(config)] * (7 - whole))
    outcomes = run_each_before_a_clean_job(config, jobs)
    assert [outcome.results for outcome in outcomes] == expected
    assert {outcome.errors for outcome in outcomes} == {flag}


@pytest.mark.parametrize("stream", ["activation", "weight", "scale"])
def test_late_tlast_discards_the_rest(stream):
    config = FAULTED
    jobs, expected = [], []
    for eagerness in EAGERNESS:
        job, right = case(config, 7, 24, 9, **eagerness)
        for extra in (1, 5):
            beats = getattr(job, stream) + [(1 << 16) - 1] * extra
            jobs.append(replace(job, **{stream: beats}))
            expected.append(right)
    outcomes = run_each_before_a_clean_job(config, jobs)
    assert [outcome.results for outcome in outcomes] == expected
    assert {outcome.errors for outcome in outcomes} == {ErrorFlag[f"{stream.upper()}_TLAST"]}


def test_start_while_busy_is_refused_and_disturbs_nothing():
    config = FAULTED
    job, expected = case(config, 9, 64, 10)
    bench = Bench(config, seed=0)
    seen = []

    async def host(ctx):
        bench.queue(job)
        await bench.start(ctx, job.n, job.k)
        await bench.start(ctx, 1, 1)
        await bench.finish(ctx, job.n, job.k)
        seen.append(await bench.outcome(ctx))

    bench.run(host)
    assert seen[0].results == expected
    assert seen[0].errors == ErrorFlag.START_BUSY


def test_bad_shape_is_refused():
    bench = Bench(FAULTED, seed=0)
    job, expected = case(FAULTED, 64, 64, 11)
    seen = []

    async def host(ctx):
        for n, k in [(0, 8), (8, 0), (65, 8), (8, 65), (1 << 31, 8), (8, 1 << 16)]:
            await bench.start(ctx, n, k)
            await ctx.tick().repeat(5)
            seen.append(await read(ctx, bench.dut, Register.STATUS))
            seen.append(await read(ctx, bench.dut, Register.ERRORS))
            await write(ctx, bench.dut, Register.ERRORS, 0xFF)
        bench.queue(job)
        await bench.start(ctx, 64, 64)
        await bench.finish(ctx, 64, 64)
        seen.append((await bench.outcome(ctx)).results)

    bench.run(host)
    assert seen == [0, ErrorFlag.BAD_SHAPE] * 6 + [expected]


@pytest.mark.parametrize("wait", [1, 3, 9, 20, 40, 70])
def test_abort_drops_the_job_and_leaves_the_array_usable(wait):
    config = FAULTED
    job, expected = case(config, 30, 32, 12, backpressure=0.9)
    bench = Bench(config, seed=0)
    seen = []

    async def host(ctx):
        # Beats enough for two jobs, one TLAST at their end: the abort comes amid a packet.
        for name, queue in bench.pending.items():
            queue.clear()
            queue.append(_endless(bench.dut, name, getattr(job, name)))
        bench.backpressure = 0.9
        await bench.start(ctx, job.n, job.k)
        await ctx.tick().repeat(wait)
        await write(ctx, bench.dut, Register.CONTROL, 0b10)
        seen.append(await read(ctx, bench.dut, Register.STATUS))
        for name in bench.pending:
            ctx.set(getattr(bench.dut, f"s_axis_{name}_tvalid"), 0)
        stop["now"] = True
        await ctx.tick().repeat(3)
        bench.collected.clear()
        bench.queue(job)
        bench.backpressure = 0
        await bench.start(ctx, job.n, job.k)
        await bench.finish(ctx, job.n, job.k)
        seen.append((await bench.outcome(ctx)).results)

    stop = {"now": False}

    def _endless(dut, name, beats):
        async def offer(ctx):
            index = 0
            while not stop["now"]:
                ctx.set(getattr(dut, f"s_axis_{name}_tdata"), beats[index % len(beats)])
                ctx.set(getattr(dut, f"s_axis_{name}_tlast"), 0)
                ctx.set(getattr(dut, f"s_axis_{name}_tvalid"), 1)
                *_, taken = await ctx.tick().sample(getattr(dut, f"s_axis_{name}_tready"))
                index += taken
            ctx.set(getattr(dut, f"s_axis_{name}_tvalid"), 0)

        return offer

    bench.run(host)
    assert seen == [0, expected]
