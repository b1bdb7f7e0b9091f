"""An AXI4-Lite master for `RegisterFile`, and the runner of its scenarios."""

from tern_hw.config import Register
from tern_hw.gateware.registers import RegisterFile
from tests.gateware.blocks import bench, small

__all__ = ["CONFIG", "GARBAGE", "OKAY", "SLVERR", "Host", "run"]

CONFIG = small(lanes=12, rows=3, group_size=4, max_k=300, max_n=70_000)
OKAY, SLVERR = 0, 2
#: Address and data of nothing that is valid.
GARBAGE = {"aw": {"awaddr": 0x18}, "w": {"wdata": 0x5A5A5A5A, "wstrb": 0xF}, "ar": {"araddr": 0x2C}}


class Host:
    """An AXI4-Lite master that drives its channels one by one."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut
        for channel in GARBAGE:
            self.offer(channel, 0, GARBAGE[channel])

    def set(self, **signals):
        for name, value in signals.items():
            self.ctx.set(getattr(self.dut, name), value)

    def get(self, name):
        return self.ctx.get(getattr(self.dut, name))

    def offer(self, channel, valid, payload):
        self.set(**{f"axil_{name}": value for name, value in payload.items()})
        self.set(**{f"axil_{channel}valid": valid})

    async def write(self, address, data, *, strobes=0xF, pauses=(0, 0, 0)):
        """Write and return the response; `pauses` come before address, data and ready."""
        payload = {"aw": {"awaddr": address}, "w": {"wdata": data, "wstrb": strobes}}
        due = dict(zip(payload, pauses, strict=False))
        cycle = 0
        while due:
            offered = [channel for channel in due if cycle >= due[channel]]
            for channel in offered:
                self.offer(channel, 1, payload[channel])
            taken = [channel for channel in offered if self.get(f"axil_{channel}ready")]
            await self.ctx.tick()
            for channel in taken:
                self.offer(channel, 0, GARBAGE[channel])
                del due[channel]
            cycle += 1
        _, response = await self._answer("b", pauses[2])
        return response

    async def read(self, address, *, pause=0):
        """Return the data and the response."""
        self.offer("ar", 1, {"araddr": address})
        while not self.get("axil_arready"):
            await self.ctx.tick()
        await self.ctx.tick()
        self.offer("ar", 0, GARBAGE["ar"])
        return await self._answer("r", pause)

    async def _answer(self, channel, pause):
        """Wait `pause` cycles in which the answer must stay, then take it."""
        while not self.get(f"axil_{channel}valid"):
            await self.ctx.tick()
        answer = self.get("axil_rdata"), self.get(f"axil_{channel}resp")
        for _ in range(pause):
            await self.ctx.tick()
            assert self.get(f"axil_{channel}valid")
            assert (self.get("axil_rdata"), self.get(f"axil_{channel}resp")) == answer
        self.set(**{f"axil_{channel}ready": 1})
        await self.ctx.tick()
        self.set(**{f"axil_{channel}ready": 0})
        assert not self.get(f"axil_{channel}valid")
        return answer

    async def value(self, register):
        data, response = await self.read(register)
        assert response == OKAY
        return data

    async def shape(self, n, k):
        await self.write(Register.N, n)
        await self.write(Register.K, k)

    async def pulse(self, **signals):
        """Set signals for one cycle."""
        self.set(**signals)
        await self.ctx.tick()
        self.set(**dict.fromkeys(signals, 0))


def run(scenario, config=CONFIG):
    """Run the coroutine `scenario(host)`; return the cycles in which `start`, `abort` were up."""
    dut = RegisterFile(config)
    starts, aborts = [], []

    async def drive(ctx):
        await scenario(Host(ctx, dut))

    async def watch(ctx):
        cycle = 0
        while True:
            _, _, start, abort = await ctx.tick().sample(dut.start, dut.abort)
            starts.extend([cycle] * start)
            aborts.extend([cycle] * abort)
            cycle += 1

    bench(dut, drive, watch)
    return starts, aborts
