"""Running a tool: a time limit, captured output, and one sentence when it fails."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tern_hw.errors import TernError

__all__ = ["ToolError", "failure", "find_program", "run_tool"]

#: Lines of a failed tool's output that the message quotes.
QUOTED_LINES = 12


class ToolError(TernError):
    """A tool that was found but did not do its work; `output` holds all it printed."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


def failure(name: str, status: int, output: str) -> ToolError:
    """Return the error of a tool that ended badly: one sentence, and the end of what it said."""
    end = "\n".join(output.rstrip().splitlines()[-QUOTED_LINES:])
    return ToolError(f"{name} must end with status 0, not {status}:\n{end}", output)


def find_program(name: str, install: str) -> Path:
    """Return the path of an executable.

    Parameters
    ----------
    name
        Program name, or a path to it.
    install
        How the user gets it; ends the sentence.

    Raises
    ------
    TernError
        If it is not on the PATH.
    """
    found = shutil.which(name)
    if found is None:
        raise TernError(f"{name} must be installed and on the PATH: {install}")
    return Path(found)


def run_tool(
    command: Sequence[str | Path],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end and return its status and output (stdout and stderr as one text).

    Parameters
    ----------
    command
        Program and arguments; no shell reads them.
    timeout_s
        Seconds after which the tool is stopped.
    cwd
        Working directory.
    env
        Variables added to this process' environment.
    check
        Whether a status other than 0 is an error.

    Raises
    ------
    ToolError
        If the tool cannot be started, does not end in time, or (with `check`) fails.
    """
    words = [str(word) for word in command]
    name = Path(words[0]).name
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ToolError(f"{name} must end within {timeout_s:g} s, and did not") from None
    except OSError as error:
        raise ToolError(f"{name} must be runnable: {error.strerror or error}") from None
    if check and done.returncode:
        raise failure(name, done.returncode, done.stdout)
    return done
