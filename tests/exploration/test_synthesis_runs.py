"""Real syntheses of a sweep: in processes, on Dask, ended early and taken up again."""

import json
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tern_hw.cache import cache_root
from tests.exploration.sweeps import begun

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes stand in /proc"),
]

#: Two arrays, both on the front, the first a matter of seconds, the second of many.
OPTIONS = ["--lanes", "8,128", "--rows", "1", "--group-size", "64", "--packing", "2bit"]
OPTIONS += ["--max-k", "256", "--max-n", "512", "--minimise", "array-area,time", "--synth", "ecp5"]
#: Seconds that ended processes have to go, on a machine with other work.
PATIENCE_S = 60
#: The same for Yosys, which would need longer to come to its own end.
AT_ONCE_S = 8


def started(small, *options):
    command = [sys.executable, "-m", "tern_hw.explore", "--model", small, *OPTIONS, *options]
    return begun(command)


def below(process):
    """Return the processes that a process started, and theirs, each with its command line."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(int(stat[1]), []).append((int(entry.name), words))
    found, todo = {}, [process.pid]
    while todo:
        for number, words in parents.get(todo.pop(), []):
            found[number] = words
            todo.append(number)
    return found


def alive(number):
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def gone(numbers, seconds):
    end = time.monotonic() + seconds
    while any(map(alive, numbers)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def kept():
    """Return the syntheses in the store, by name, each with what is new where it is made again."""
    entries = (path.parent for path in (cache_root() / "synthesis").glob("*/facts.json"))
    return {entry.name: entry.stat().st_ino for entry in entries}


def wait_for(process, condition):
    end = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.05)


def yosys_of(process):
    return [number for number, words in below(process).items() if "libyosys" in words]


@pytest.mark.parametrize("how", [["--workers", "2"], ["--scheduler", "local", "--workers", "1"]])
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_run_leaves_no_yosys_and_goes_on(small, how, end):
    """Whatever it started goes with it, and what was kept is not made again."""
    if "--scheduler" in how:
        pytest.importorskip("distributed")
    first = started(small, *how)
    wait_for(first, lambda: kept() and yosys_of(first))
    tools, others = yosys_of(first), below(first)
    first.send_signal(end)
    assert gone(tools, AT_ONCE_S)
    output, errors = first.communicate(timeout=PATIENCE_S)
    assert output == ""
    assert gone(others, PATIENCE_S)
    if end == signal.SIGINT:
        assert first.returncode == 130
        # None where the store had the first before its answer came here.
        assert re.search("[01] of 2 arrays are kept: the same command goes on\n", errors)
        assert "Traceback" not in errors
    before = kept()
    assert len(before) == 1
    second = started(small, "--workers", "2", "--json")
    output, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    facts = json.loads(output)
    assert facts["synthesis"]["synthesised"] == 2
    assert all(point["cells"] for point in facts["points"])
    assert len(kept()) == 2
    assert before.items() <= kept().items()
