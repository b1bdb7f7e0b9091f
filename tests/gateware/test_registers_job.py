"""The registers' part in a job: start, abort, done, sticky errors and counters."""

import pytest

from tern_hw.config import ErrorFlag, Register
from tern_hw.gateware.registers import STALLS
from tests.gateware.axi_lite import GARBAGE, run
from tests.gateware.blocks import randoms

START, ABORT = 1, 2
BUSY, DONE = 1, 2


@pytest.mark.parametrize(("n", "k"), [(1, 1), (70_000, 300), (1, 300), (5, 7)])
def test_an_accepted_start_latches_the_shape_and_pulses_once(n, k):
    seen = []

    async def scenario(host):
        await host.shape(n, k)
        await host.write(Register.CONTROL, START)
        seen.append((host.get("last_n"), host.get("last_k")))
        await host.shape(3, 3)
        seen.append((host.get("last_n"), host.get("last_k")))
        assert await host.value(Register.ERRORS) == 0

    starts, aborts = run(scenario)
    assert seen == [(n - 1, k - 1)] * 2
    assert (len(starts), aborts) == (1, [])


TOO_LARGE = [(70_001, 1), (1, 301), (1 << 17 | 1, 1), (1, 1 << 9 | 1), (1 << 31, 1), (1, 1 << 31)]


@pytest.mark.parametrize(("n", "k"), [(0, 1), (1, 0), (0, 0), *TOO_LARGE])
def test_a_bad_shape_is_refused(n, k):
    async def scenario(host):
        await host.shape(n, k)
        await host.write(Register.CONTROL, START)
        assert await host.value(Register.ERRORS) == ErrorFlag.BAD_SHAPE
        assert await host.value(Register.STATUS) == 0
        assert (host.get("last_n"), host.get("last_k")) == (0, 0)

    assert run(scenario) == ([], [])


@pytest.mark.parametrize("n", [4, 0])
def test_start_while_busy_is_refused(n):
    async def scenario(host):
        await host.shape(n, 4)
        host.set(busy=1)
        await host.write(Register.CONTROL, START)
        assert await host.value(Register.ERRORS) == ErrorFlag.START_BUSY
        assert await host.value(Register.STATUS) == BUSY

    assert run(scenario) == ([], [])


def test_a_start_right_after_a_start_is_refused():
    """`busy` comes a cycle after `start`; the host may be faster."""

    async def scenario(host):
        await host.shape(4, 4)
        host.set(axil_bready=1)
        host.offer("aw", 1, {"awaddr": int(Register.CONTROL)})
        host.offer("w", 1, {"wdata": START, "wstrb": 0xF})
        await host.ctx.tick()
        await host.ctx.tick()
        for channel in ("aw", "w"):
            host.offer(channel, 0, GARBAGE[channel])
        host.set(busy=1)
        await host.ctx.tick()
        host.set(axil_bready=0)
        assert await host.value(Register.ERRORS) == ErrorFlag.START_BUSY

    starts, _ = run(scenario)
    assert len(starts) == 1


@pytest.mark.parametrize(
    ("data", "strobes", "started", "aborted"),
    [
        (START, 0xF, 1, 0),
        (START, 0x1, 1, 0),
        (START, 0xE, 0, 0),
        (ABORT, 0xF, 0, 1),
        (ABORT, 0xE, 0, 0),
        (START | ABORT, 0xF, 0, 1),
        (0xFFFF_FFFC, 0xF, 0, 0),
    ],
)
def test_control_bits(data, strobes, started, aborted):
    async def scenario(host):
        await host.shape(4, 4)
        await host.write(Register.CONTROL, data, strobes=strobes)
        assert await host.value(Register.ERRORS) == 0

    starts, aborts = run(scenario)
    assert (len(starts), len(aborts)) == (started, aborted)


def test_abort_while_busy():
    async def scenario(host):
        host.set(busy=1)
        await host.write(Register.CONTROL, ABORT)

    starts, aborts = run(scenario)
    assert (starts, len(aborts)) == ([], 1)


def test_done_from_the_end_of_a_job_to_the_next_accepted_start():
    async def scenario(host):
        await host.shape(4, 4)
        await host.write(Register.CONTROL, START)
        host.set(busy=1)
        assert await host.value(Register.STATUS) == BUSY
        await host.pulse(finished=1)
        host.set(busy=0)
        assert await host.value(Register.STATUS) == DONE
        await host.shape(0, 4)
        await host.write(Register.CONTROL, START)
        assert await host.value(Register.STATUS) == DONE
        await host.shape(4, 4)
        await host.write(Register.CONTROL, START)
        assert await host.value(Register.STATUS) == 0

    starts, _ = run(scenario)
    assert len(starts) == 2


def test_abort_clears_done():
    async def scenario(host):
        await host.pulse(finished=1)
        assert await host.value(Register.STATUS) == DONE
        await host.write(Register.CONTROL, ABORT)
        assert await host.value(Register.STATUS) == 0

    run(scenario)


# -------------------------------------------------------------- errors, counters


@pytest.mark.parametrize("bit", range(6))
def test_each_fault_sticks_until_it_is_cleared(bit):
    async def scenario(host):
        await host.pulse(faults=1 << bit)
        assert await host.value(Register.ERRORS) == 1 << bit
        await host.write(Register.ERRORS, ~(1 << bit) & 0xFFFF_FFFF)
        assert await host.value(Register.ERRORS) == 1 << bit
        await host.write(Register.ERRORS, 1 << bit, strobes=0xE)
        assert await host.value(Register.ERRORS) == 1 << bit
        await host.write(Register.ERRORS, 1 << bit, strobes=0x1)
        assert await host.value(Register.ERRORS) == 0

    run(scenario)


def test_clearing_one_error_leaves_the_others():
    async def scenario(host):
        await host.shape(0, 0)
        await host.write(Register.CONTROL, START)
        host.set(busy=1)
        await host.write(Register.CONTROL, START)
        await host.pulse(faults=0x3F)
        left = 0xFF
        for bit in (6, 0, 3, 7, 1, 5, 2, 4):
            assert await host.value(Register.ERRORS) == left
            await host.write(Register.ERRORS, 1 << bit)
            left &= ~(1 << bit)
        assert await host.value(Register.ERRORS) == 0

    run(scenario)


@pytest.mark.parametrize("bit", range(6))
def test_a_fault_wins_over_its_clearing(bit):
    async def scenario(host):
        host.offer("aw", 1, {"awaddr": int(Register.ERRORS)})
        host.offer("w", 1, {"wdata": 0xFF, "wstrb": 0xF})
        await host.pulse(faults=1 << bit)
        for channel in ("aw", "w"):
            host.offer(channel, 0, GARBAGE[channel])
        await host.pulse(axil_bready=1)
        assert await host.value(Register.ERRORS) == 1 << bit

    run(scenario)


def test_counters_count_their_own_events_from_the_start():
    rng = randoms("counters")
    expected = dict.fromkeys((Register.CYCLES, *STALLS), 0)

    async def events(host):
        """One cycle of events; count them."""
        counting, stalls = rng.getrandbits(1), rng.getrandbits(len(STALLS))
        host.set(counting=counting, stalls=stalls)
        starting = host.get("start")
        await host.ctx.tick()
        expected[Register.CYCLES] += counting
        for at, register in enumerate(STALLS):
            expected[register] += stalls >> at & 1
        if starting:
            expected.update(dict.fromkeys(expected, 0))

    async def check(host):
        host.set(counting=0, stalls=0)
        # An event is counted a cycle after it.
        await host.ctx.tick()
        assert {register: await host.value(register) for register in expected} == expected

    async def scenario(host):
        await host.shape(4, 4)
        for cycles in (300, 40):
            for _ in range(cycles):
                await events(host)
            await check(host)
            assert len(set(expected.values())) > 1
        host.offer("aw", 1, {"awaddr": int(Register.CONTROL)})
        host.offer("w", 1, {"wdata": START, "wstrb": 0xF})
        await events(host)
        for channel in ("aw", "w"):
            host.offer(channel, 0, GARBAGE[channel])
        for _ in range(50):
            await events(host)
        host.set(axil_bready=1)
        await check(host)
        assert max(expected.values()) < 50

    starts, _ = run(scenario)
    assert len(starts) == 1
