"""The AXI4-Lite registers: reset values, who may write what, handshakes in any order and pace."""

from itertools import product

import pytest
from amaranth.hdl import Shape

from tern_hw.config import ArrayConfig, Register
from tern_hw.formal.registers import READ_CYCLES
from tern_hw.gateware.registers import axi_lite_ports, group_word
from tests.gateware.axi_lite import CONFIG, GARBAGE, OKAY, SLVERR, run
from tests.gateware.blocks import randoms, small

#: What each register reads after reset.
RESET = dict.fromkeys(Register, 0) | {
    Register.ID: 0x5445524E,
    Register.VERSION: 1,
    Register.ARRAY: 12 | 3 << 16,
    Register.GROUP: 4,
    Register.MAX_K: CONFIG.max_k,
    Register.MAX_N: CONFIG.max_n,
}


def test_ports_are_those_of_axi_lite():
    """AMBA IHI 0022, B1: 32 bits of data, 3 of protection, 2 of response."""
    widths = {
        "In": {"awaddr": 8, "awprot": 3, "wdata": 32, "wstrb": 4, "araddr": 8, "arprot": 3},
        "Out": {"bresp": 2, "rdata": 32, "rresp": 2},
    }
    handshakes = {
        "In": ("awvalid", "wvalid", "bready", "arvalid", "rready"),
        "Out": ("awready", "wready", "bvalid", "arready", "rvalid"),
    }
    expected = {
        f"axil_{name}": (flow, width)
        for flow in widths
        for name, width in (widths[flow] | dict.fromkeys(handshakes[flow], 1)).items()
    }
    members = axi_lite_ports("axil_").items()
    assert {name: (m.flow.name, Shape.cast(m.shape).width) for name, m in members} == expected


def test_reset_values_and_unmapped_addresses():
    async def scenario(host):
        for address in range(0, 0x100, 4):
            mapped = address < 0x40
            expected = (RESET[Register(address)], OKAY) if mapped else (0, SLVERR)
            assert await host.read(address) == expected

    run(scenario)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"lanes": 8, "rows": 1}, 8 | 1 << 16),
        ({"lanes": 1024, "rows": 16, "activation": "fp16"}, 1024 | 16 << 16 | 1 << 24),
        ({"lanes": 9, "packing": "base3"}, 9 | 2 << 16 | 1 << 25),
        ({"lanes": 9, "output": "fp16"}, 9 | 2 << 16 | 1 << 26),
    ],
)
def test_array_word_and_row_groups(fields, word):
    async def scenario(host):
        assert await host.value(Register.ARRAY) == word
        assert await host.value(Register.GROUP) == 0

    run(scenario, small(max_k=1024, **fields))


@pytest.mark.parametrize(("group", "word"), [(16, 16), ("row", 0)])
def test_group_word_tells_the_bits_of_aligned_activations(group, word):
    async def scenario(host):
        assert await host.value(Register.GROUP) == word | 40 << 24

    run(scenario, small(activation="fp16", aligned=40, group_size=group))


def test_binary16_weights_have_no_group():
    assert group_word(ArrayConfig(activation="fp16", weights="fp16")) == 0


def test_only_n_and_k_keep_what_is_written():
    data = 0xFFFF_FFFC  # neither start nor abort

    async def scenario(host):
        for address in range(0, 0x100, 4):
            assert await host.write(address, data) == (OKAY if address < 0x40 else SLVERR)
        for register in Register:
            kept = register in (Register.N, Register.K)
            assert await host.value(register) == (data if kept else RESET[register])

    assert run(scenario) == ([], [])


def test_byte_strobes():
    async def scenario(host):
        rng = randoms("strobes")
        held = {Register.N: 0, Register.K: 0}
        for register, strobes in product(held, (*range(16), *range(15, -1, -1))):
            data = rng.getrandbits(32)
            await host.write(register, data, strobes=strobes)
            mask = sum(0xFF << 8 * byte for byte in range(4) if strobes >> byte & 1)
            held[register] = held[register] & ~mask | data & mask
            assert {each: await host.value(each) for each in held} == held

    run(scenario)


# ------------------------------------------------------------------ handshakes


@pytest.mark.parametrize("pauses", [*product((0, 1, 4), (0, 1, 4), (0, 3))])
def test_address_before_data_and_data_before_address(pauses):
    async def scenario(host):
        for value in (0x1234_5678, 0x8765_4321):
            assert await host.write(Register.N, value, pauses=pauses) == OKAY
            assert await host.read(Register.N, pause=pauses[2]) == (value, OKAY)
            assert await host.write(0x64, 1, pauses=pauses) == SLVERR
            assert await host.read(0x64, pause=pauses[2]) == (0, SLVERR)
        assert await host.value(Register.K) == 0

    assert run(scenario) == ([], [])


@pytest.mark.parametrize(("idle", "slow"), [(0, 0), (0.5, 0), (0, 0.7), (0.5, 0.5)])
def test_random_traffic(idle, slow):
    """Writes and reads at once, back to back, each channel at its own pace.

    A write is answered in the next cycle, a read in the one after: of what there was in between.
    None is taken in the cycle after a write of N or K.
    """
    rng = randoms("traffic", idle, slow)
    registers = (Register.N, Register.K, Register.MAX_K, 0x64, 0xFC)
    channels = {
        "aw": lambda: {"awaddr": int(rng.choice(registers))},
        "w": lambda: {"wdata": rng.getrandbits(32), "wstrb": 0xF},
        "ar": lambda: {"araddr": int(rng.choice(registers))},
    }
    counts = {"b": 0, "r": 0}

    async def scenario(host):
        held = {Register.N: 0, Register.K: 0, Register.MAX_K: 300}
        offered: dict[str, dict] = {}
        answers: dict[str, tuple | None] = {"b": None, "r": None}
        asked, settling = None, False
        for _ in range(1500):
            for channel, payload in channels.items():
                if channel not in offered and rng.random() >= idle:
                    offered[channel] = payload()
                    host.offer(channel, 1, offered[channel])
            ready = {c: rng.random() >= slow for c in answers}
            host.set(**{f"axil_{c}ready": value for c, value in ready.items()})
            taken = {c for c in offered if host.get(f"axil_{c}ready")}
            assert ("aw" in taken) == ("w" in taken)
            for channel, answer in answers.items():
                assert host.get(f"axil_{channel}valid") == (answer is not None)
                if answer is not None:
                    data = host.get("axil_rdata") if channel == "r" else None
                    assert (data, host.get(f"axil_{channel}resp")) == answer
                    if ready[channel]:
                        answers[channel] = None
                        counts[channel] += 1
            # Taken in this very cycle where there is room: a transfer a cycle is possible.
            both = {"aw", "w"} <= set(offered)
            assert ("aw" in taken) == (both and answers["b"] is None and not settling)
            settling = "aw" in taken and offered["aw"]["awaddr"] in (Register.N, Register.K)
            free = asked is None and answers["r"] is None
            assert ("ar" in taken) == ("ar" in offered and free)
            await host.ctx.tick()
            if asked is not None:
                answers["r"] = (held.get(asked, 0), OKAY if asked < 0x40 else SLVERR)
            asked = offered["ar"]["araddr"] if "ar" in taken else None
            if "aw" in taken:
                address = offered["aw"]["awaddr"]
                if address in (Register.N, Register.K):
                    held[address] = offered["w"]["wdata"]
                answers["b"] = (None, OKAY if address < 0x40 else SLVERR)
            for channel in taken:
                del offered[channel]
                host.offer(channel, 0, GARBAGE[channel])

    run(scenario)
    at_full_pace = not idle and not slow
    assert counts["b"] > (1000 if at_full_pace else 100)
    assert counts["r"] > (700 if at_full_pace else 100)


def test_a_counter_s_read_waits_for_its_turn_and_no_longer():
    async def scenario(host):
        waits = set()
        for pause in range(40):
            host.offer("ar", 1, {"araddr": int(Register.SCALE_STALLS)})
            await host.ctx.tick()
            host.offer("ar", 0, GARBAGE["ar"])
            cycles = 1
            while not host.get("axil_rvalid"):
                await host.ctx.tick()
                cycles += 1
            waits.add(cycles)
            host.set(axil_rready=1)
            await host.ctx.tick()
            host.set(axil_rready=0)
            for _ in range(pause % 7):
                await host.ctx.tick()
        assert waits == set(range(3, READ_CYCLES + 1))

    run(scenario)
