"""What every command line shares: one sentence for a user's mistake, and a progress bar."""

import argparse
import contextlib
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, NoReturn

from tern_hw.errors import TernError

__all__ = ["ArgumentParser", "integer", "parse_group_size", "progress", "run", "stages"]

#: Exit status of a user's mistake, as argparse has it.
EXIT_MISTAKE: Final = 2
#: Exit statuses of a process that SIGINT or SIGPIPE ended, as a shell reports them.
EXIT_INTERRUPTED: Final = 128 + 2
EXIT_BROKEN_PIPE: Final = 128 + 13

#: Errors of a full disk, which name no file.
FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

#: argparse's messages, and the same in our form; a message not listed stays as it is.
REWORDED: Final = (
    (r"argument (\S+): invalid int(?:eger)? value: (.*)", r"\1 must be an integer, not \2"),
    (r"argument (\S+): invalid float value: (.*)", r"\1 must be a number, not \2"),
    (r"argument (\S+): expected (?:one|at least one) argument", r"\1 must be followed by a value"),
    (
        r"argument (\S+): ignored explicit argument (.*)",
        r"\1 must be given without a value, not with \2",
    ),
    (
        r"argument (\S+): not allowed with argument (\S+)",
        r"\1 must be given alone, not with \2",
    ),
    (r"unrecognized arguments: (.*)", r"arguments must be among those that --help lists, not \1"),
    (r"the following arguments are required: (.*)", r"\1 must be given"),
    (
        r"argument (\S+): invalid choice: (.*) \(choose from (.*)\)",
        r"\1 must be one of \3, not \2",
    ),
)


class ArgumentParser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose mistakes take one line, with no usage before it.

    Options are not abbreviated, so that a new one never changes what an old command means.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print `error: <sentence>` to stderr and exit with status 2."""
        for pattern, form in REWORDED:
            if match := re.fullmatch(pattern, message, flags=re.DOTALL):
                message = match.expand(form)
                break
        self.exit(EXIT_MISTAKE, f"error: {message}\n")


def integer(text: str) -> int:
    """Read an integer of an option: decimal digits, and nothing else that Python would take.

    Parameters
    ----------
    text : str
        As typed; `int` would also take "6_4", " 64" and the digits of other scripts.

    Raises
    ------
    ValueError
        If it is not one; as a `type` of `add_argument`, this makes argparse refuse the option.
    """
    if not re.fullmatch("-?[0-9]+", text):
        raise ValueError(f"text must be an integer, not {text!r}")
    return int(text)


def parse_group_size(text: str) -> int | Literal["row"]:
    """Read a command line's --group-size: "row" or an integer, whose range is not looked at.

    Raises
    ------
    TernError
        If it is neither.
    """
    if text == "row":
        return "row"
    try:
        return integer(text)
    except ValueError:
        raise TernError(f'--group-size must be "row" or an integer, not {text!r}') from None


def run(main: Callable[[], int]) -> int:
    """Call a verb's `main` and turn what the user can mend into one sentence on stderr.

    Parameters
    ----------
    main : callable
        Takes no argument and returns the exit status.

    Returns
    -------
    int
        The status of `main`; 2 after a mistake or where stdout is closed from the start, 130 after
        Ctrl-C, 141 where the reader of stdout went away. Any other exception is a defect of ours
        and keeps its traceback.
    """
    if sys.stdout is None:  # as Python has it where the shell closed it
        return _mistake("stdout must be open, not closed")
    try:
        try:
            return main()
        finally:
            # A closed pipe shows here, not while the interpreter ends.
            sys.stdout.flush()
    except TernError as error:
        return _mistake(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # What is still buffered must go somewhere when the interpreter flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except MemoryError as error:
        return _mistake(f"memory must be enough for this job ({str(error) or 'allocation failed'})")
    except OSError as error:
        if error.filename is not None:
            return _mistake(f"{os.fsdecode(error.filename)}: {error.strerror}")
        if error.errno in FULL_DISK:
            return _mistake(f"the disk must have room for the output ({error.strerror})")
        raise


def _mistake(sentence: str) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"error: {sentence}\n")
    return EXIT_MISTAKE


@contextlib.contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr while the block runs; yields a function that adds to what is done.

    Parameters
    ----------
    description : str
        What is being done, as in "quantising layers".
    total : int
        Count at which the bar is full.
    """
    # Here and not above: rich costs more to import than most verbs take to print their help.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


@contextlib.contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Show on stderr which tool runs and for how long; yields a function that names the next one.

    On a terminal each stage is a line with its running seconds, gone at the end; elsewhere a plain
    line when it begins.
    """
    # Here and not above, as for `progress`.
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: print(f"{text} ...", file=sys.stderr, flush=True)
        return
    columns = (SpinnerColumn(), "{task.description}", TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:

        def begin(text: str) -> None:
            for task in bar.tasks:
                bar.update(task.id, total=1, completed=1)
            bar.add_task(text, total=None)

        yield begin
