"""`python -m tern_hw.bench`: fair turns, figures that add up, and what is refused."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tern_hw import bench, kernels
from tern_hw.benchmark import cases, measure, roofs
from tern_hw.benchmark.measure import Timing, interleaved
from tern_hw.cli import run


def command(*arguments):
    """Run the command line in this process; returns its status as the shell would see it."""
    try:
        return run(lambda: bench.main([str(argument) for argument in arguments]))
    except SystemExit as stopped:
        return stopped.code


def test_turns_are_interleaved():
    calls = []
    found = interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2)
    changes = [name for place, name in enumerate(calls) if place == 0 or calls[place - 1] != name]
    assert changes == ["a", "b", "a", "b"]
    assert [len(timing.rounds) for timing in found.values()] == [2, 2]


def test_ratios_are_of_the_same_round():
    ours, theirs = Timing((1.0, 2.0, 4.0)), Timing((3.0, 4.0, 20.0))
    assert ours.seconds == 2.0
    assert ours.spread == pytest.approx(0.375)
    assert ours.times_faster(theirs) == (3.0, 2.0, 5.0)
    assert Timing((1.0,)).spread == 0


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """One small run of the command, as a process of its own: its threads are set before numpy."""
    folder = tmp_path_factory.mktemp("bench")
    options = ["--shapes", "96x160", "--tokens", "1", "3", "--threads", "1", "2", "--rounds", "2"]
    files = ["--json", str(folder / "bench.json"), "--picture", str(folder / "bench.png")]
    code = (
        "import sys; from tern_hw.benchmark import cases; cases.COLD_BYTES = 1 << 20;"
        "from tern_hw.bench import main; raise SystemExit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *options, *files], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "bench.json").read_text()), done.stdout, folder


def test_a_report_has_every_case(report):
    figures, printed, folder = report
    found = [(case["shape"], case["threads"], case["caches"]) for case in figures["cases"]]
    each = [
        ("96 x 160, 1 token", "hot"),
        ("96 x 160, 3 tokens", "hot"),
        ("96 x 160, 1 token", "cold"),
    ]
    assert found == [(shape, threads, caches) for threads in (1, 2) for shape, caches in each]
    for case in figures["cases"]:
        assert case["roofs"].keys() == {"read_gb_s", "gmacs"}
        for row in case["rows"]:
            # Roofs have their turns, too; a share is of the round's own roof.
            for share, rate, roof in (
                ("of_peak", "gmacs", "gmacs"),
                ("of_read", "gb_s", "read_gb_s"),
            ):
                if case["roofs"][roof] is not None:
                    about = row[rate] / case["roofs"][roof]
                    assert about / 10 < row[share] < 10 * about
            assert row["gmacs"] == pytest.approx(row["products"] / row["seconds"] / 1e9)
            assert row["gb_s"] == pytest.approx(row["nbytes"] / row["seconds"] / 1e9)
            assert row["right"] is not False
            assert row["name"].split()[0] in printed
    names = [row["name"] for row in figures["cases"][0]["rows"]]
    assert names[0] == "int8 2bit G128"
    assert {"numpy fp32", "torch bf16", "torch int8 dynamic", "reference 2bit G128"} <= set(names)
    assert "llama-cpp-python: computes whole models only, not timed" in printed
    first = figures["first_call"]
    assert first["compiled"]["first_product"] > first["cached"]["first_product"] > 0
    assert "a process's first product, cached: " in printed
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_outputs_are_compared_after_the_clock(report):
    figures, _, _ = report
    kernels_rows = [row for row in figures["cases"][0]["rows"] if " G" in row["name"]]
    judged = {row["name"]: row["right"] for row in kernels_rows}
    assert judged.pop("reference 2bit G128") is None
    assert set(judged.values()) == {True}


def test_a_share_is_of_the_same_round():
    found = {"ours": Timing((1.0, 2.0, 4.0)), "read_gb_s": Timing((3.0, 4.0, 20.0))}
    shape = cases.Shape(8, 8)
    row = bench._row(
        shape,
        cases.Contender("ours", lambda: None, 50),
        found,
        {"read_gb_s": roofs.Roof(lambda: None, 100)},
    )
    assert row["of_read"] == pytest.approx(3.0 * 50 / 100)
    assert row["of_peak"] is None


def test_a_wrong_output_is_told(monkeypatch, capsys, tmp_path):
    wrong = cases.Contender("wrong", lambda: None, 1, lambda: False)
    monkeypatch.setattr(cases, "hot_contenders", lambda *args, **options: [wrong])
    monkeypatch.setattr(cases, "COLD_BYTES", 1 << 20)
    assert command("--shapes", "8x8", "--tokens", 1, "--threads", 1, "--rounds", 1) == 2
    assert "outputs must be the reference's, not as those of wrong" in capsys.readouterr().err


def test_roofs_do_what_they_say():
    reader = roofs.stream_reader(3 * roofs.CHUNK + 4096, 2)
    reader()  # raises unless every word was added once
    for name in kernels.available():
        if name != "portable":
            call, products = roofs.dot_products(name, 2)
            call()
            lanes = roofs.INSTRUCTIONS[name].lanes
            assert products == 2 * roofs.BLOCKS * roofs.STEPS * roofs.CHAINS * 4 * lanes


#: As much of litespark-inference as the benchmark calls, in numpy.
LITESPARK = """
import numpy as np
def digits(packed):
    return ((packed[..., None] >> np.array([0, 2, 4, 6])) & 3).reshape(len(packed), -1)
def matmul_packed_m1(x, packed, w_scale, x_scale):
    return ((digits(packed) - 1.0) @ x * w_scale * x_scale).astype(np.float32)
def matmul_packed_mT(x, scales, packed, w_scale):
    return (x @ (digits(packed) - 1.0).T * scales[:, None] * w_scale).astype(np.float32)
def has_batched_matmul():
    return True
"""


def test_a_ternary_peer_is_timed_where_it_is_installed(tmp_path, monkeypatch):
    assert "litespark-inference: not installed, not timed" in cases.peer_notes()
    package = tmp_path / cases.LITESPARK / "torchless"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package / "kernel.py").write_text(LITESPARK)
    monkeypatch.syspath_prepend(str(tmp_path))
    for tokens in (1, 3):
        shape = cases.Shape(8, 40, tokens)
        found = cases.hot_contenders(shape, 1, 1)[-1]
        assert found.name == "litespark-inference"
        found.call()
        assert found.check is not None
        assert found.check()
    assert cases.hot_contenders(cases.Shape(8, 42), 1, 1)[-1].name != "litespark-inference"
    assert len(cases.peer_notes()) == 1
    for name in [each for each in sys.modules if each.startswith(cases.LITESPARK)]:
        del sys.modules[name]


def test_a_turn_warms_up_and_repeats():
    count = 0

    def call():
        nonlocal count
        count += 1

    measure._turn(call)
    assert count == measure.WARMING + measure.MOST


def test_cold_copies_lie_apart():
    rng = np.random.default_rng(1)
    repacked = kernels.repack(cases.random_matrix(rng, cases.Shape(64, 128), 128))
    if repacked.stream is None:
        pytest.skip("this processor has no kernels")
    copies = cases._copies(repacked, repacked.stream)
    assert len(copies) * repacked.stream.nbytes >= cases.COLD_BYTES
    first, second = copies[0].stream, copies[1].stream
    assert second.ctypes.data - first.ctypes.data >= repacked.stream.nbytes
    x = rng.integers(-127, 128, (1, 128)).astype(np.int8)
    assert np.array_equal(kernels.matmul(x, copies[-1]), kernels.matmul(x, repacked))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shapes", "4096"], "--shapes must be NxK, two positive numbers, not '4096'"),
        (["--shapes", "0x8"], "--shapes must be NxK"),
        (["--tokens", "0"], "--tokens must be from 1 to 4096, not 0"),
        (["--threads", "-1"], "--threads must be from 1 to 4096, not -1"),
        (["--rounds", "x"], "--rounds must be an integer, not 'x'"),
        (["--json", "/no/such/folder/x.json"], "--json must be a file in a folder that exists"),
    ],
)
def test_what_does_not_fit_is_refused(options, message, capsys):
    assert command(*options) == 2
    assert message in capsys.readouterr().err
