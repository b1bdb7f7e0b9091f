"""No memory's reader uses a word that is being written in the same cycle.

The emitted memories say so to synthesis (`tern_hw.gateware.memories`). Here every such read answers
with the complement of the old word, and the arrays have to pass all benches all the same.
"""

import re

import pytest

from sim.runner import TEST_MODULES, Simulator, run
from tern_hw.config import ArrayConfig
from tern_hw.flows.cells import models_of
from tests.simulations import CARRY, QUICK_ALIGNED, SEED, needs, small, verilog_text

#: A memory that promises it, as Amaranth writes one: declaration, writing, reading.
PROMISE = re.compile(r"no_rw_check = [^\n]*\n(?:  \(\*[^\n]*\n)*  reg \[\d+:0\] (\S+) \[")
WRITING = r"if \((?P<enable>[^\n]+)\)\n\s+{name}\[(?P<address>[^\n]+)\] <="
READING = r"(?P<read><= {name}\[(?P<address>[^\n]+)\]);"

CONFIGS = [
    small(8, 1, "row"),
    small(16, 2, 4, "fp16", "base3"),
    CARRY[0],
    QUICK_ALIGNED,
    ArrayConfig(lanes=8, rows=1, activation="fp16", weights="fp16", max_k=15, max_n=180),
]


def with_garbage(text: str) -> tuple[str, int]:
    """Return Verilog whose memories give garbage where a read meets a write; how many those are."""
    count = 0
    modules = re.split(r"(?<=^endmodule)\n", text, flags=re.M)
    for at, module in enumerate(modules):
        for name in map(re.escape, PROMISE.findall(module)):
            write = re.search(WRITING.format(name=name), module)
            assert write is not None
            meets = f"(({write['enable']}) && ({write['address']}) == (@))"

            def garbage(read: re.Match, meets: str = meets, name: str = name) -> str:
                address = read["address"]
                word = f"{name.replace(chr(92), '')}[{address}]"
                return f"<= {meets.replace('@', address)} ? ~{word} : {word};"

            module, reads = re.subn(READING.format(name=name), garbage, module)
            assert reads == 1
            count += 1
        modules[at] = module
    return "\n".join(modules), count


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_every_memory_is_found(config):
    text, count = with_garbage(verilog_text(config))
    ternary = config.weights == "ternary"
    # Activations, and the banks of results or group sums and the queues of scales and results.
    expected = (4 if ternary else 2) + 2 * (config.aligned is not None)
    assert count == expected == verilog_text(config).count("no_rw_check")
    assert text.count("? ~") >= count


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_garbage_where_a_read_meets_a_write_changes_nothing(config, tmp_path):
    needs(Simulator.VERILATOR)
    path = tmp_path / "array.v"
    path.write_text(with_garbage(verilog_text(config))[0])
    report = run(
        path,
        config,
        Simulator.VERILATOR,
        tmp_path / "run",
        models=models_of(config),
        seed=SEED,
        modules=TEST_MODULES,
    )
    assert report.failures == {}
    assert report.tests
