"""`tern_hw.cli`: a mistake takes one sentence and status 2; a defect keeps its traceback."""

import errno
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tern_hw.cli import ArgumentParser, integer, parse_group_size, progress, run
from tern_hw.errors import TernError


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize("status", [0, 1, 7])
def test_status_of_main_is_returned(status, capsys):
    assert run(lambda: status) == status
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (TernError("lanes must be 8, not 0"), "lanes must be 8, not 0"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), "a.txt: No such file"),
        (PermissionError(errno.EACCES, "Permission denied", b"b"), "b: Permission denied"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "the disk must have room for the output (No space left on device)",
        ),
        (
            MemoryError("Unable to allocate 3 TiB"),
            "memory must be enough for this job (Unable to allocate 3 TiB)",
        ),
        (MemoryError(), "memory must be enough for this job (allocation failed)"),
    ],
)
def test_mistake_is_one_sentence_and_status_2(error, sentence, capsys):
    assert run(raising(error)) == 2
    assert capsys.readouterr() == ("", f"error: {sentence}\n")


@pytest.mark.parametrize("error", [ValueError("ours"), OSError(errno.EIO, "nameless"), KeyError(1)])
def test_defect_keeps_its_traceback(error):
    with pytest.raises(type(error)) as caught:
        run(raising(error))
    assert caught.value is error


def test_interrupt_is_status_130(capsys):
    assert run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_closed_pipe_is_quiet():
    code = (
        "from tern_hw.cli import run\n"
        "def main():\n"
        "    for _ in range(100_000): print('line')\n"
        "    return 0\n"
        "raise SystemExit(run(main))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline() == b"line\n"
    child.stdout.close()
    errors = child.stderr.read()
    child.stderr.close()
    assert (child.wait(timeout=30), errors) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--lanes", "abc"], "--lanes must be an integer, not 'abc'"),
        (["--clock", "fast"], "--clock must be a number, not 'fast'"),
        (["--lanes"], "--lanes must be followed by a value"),
        (["--packing", "3bit"], r"--packing must be one of '?2bit'?, '?base3'?, not '3bit'"),
        (["--lane", "8"], "arguments must be among those that --help lists, not --lane 8"),
        (["--seeds"], "--seeds must be followed by a value"),
        (["--all", "--check"], "--check must be given alone, not with --all"),
        (["--all=yes"], "--all must be given without a value, not with 'yes'"),
        (["--size", "6_4"], "--size must be an integer, not '6_4'"),
    ],
)
def test_wrong_argument_is_one_line_and_status_2(arguments, sentence, capsys):
    parser = ArgumentParser()
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--clock", type=float)
    parser.add_argument("--packing", choices=["2bit", "base3"])
    parser.add_argument("--seeds", nargs="+")
    parser.add_argument("--size", type=integer)
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--all", action="store_true")
    modes.add_argument("--check", action="store_true")
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(arguments)
    assert caught.value.code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(f"error: {sentence}\n", errors), errors


def test_missing_arguments_are_named(capsys):
    parser = ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--output", required=True)
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert capsys.readouterr().err == "error: model, --output must be given\n"


@pytest.mark.parametrize("text", ["0", "-1", "64", "007"])
def test_integer_takes_decimal_digits(text):
    assert integer(text) == parse_group_size(text) == int(text)


@pytest.mark.parametrize("text", ["6_4", " 64", "64\n", "+64", "٦٤", "0x40", "64.0", "", "Row"])
def test_what_is_no_plain_integer_is_refused(text):
    with pytest.raises(ValueError, match="must be an integer"):
        integer(text)
    sentence = f'^--group-size must be "row" or an integer, not {re.escape(repr(text))}$'
    with pytest.raises(TernError, match=sentence):
        parse_group_size(text)


def test_group_size_may_be_the_row():
    assert parse_group_size("row") == "row"


@pytest.mark.parametrize(
    ("closed", "errors"), [(">&-", b"error: stdout must be open, not closed\n"), (">&- 2>&-", b"")]
)
def test_closed_stdout_is_a_mistake(closed, errors):
    code = "import sys; from tern_hw.cli import run; sys.exit(run(lambda: sys.stdout.write('')))"
    shell = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
    child = subprocess.run(shell, stderr=subprocess.PIPE, timeout=60)
    assert (child.returncode, child.stderr) == (2, errors)


def test_progress_reaches_its_total_on_stderr(capsys):
    with progress("layers", total=3) as advance:
        for _ in range(3):
            advance(1)
    output, errors = capsys.readouterr()
    assert output == ""
    assert "layers" in errors
    assert "3/3" in errors
