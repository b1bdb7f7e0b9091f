"""Where points are evaluated: in this process, in processes beside it, or on a Dask cluster."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, as_completed
from typing import Any, Final, TypeVar

from tern_hw.cli import progress
from tern_hw.errors import TernError
from tern_hw.exploration.figures import Figures, code_digest

__all__ = ["Answer", "check_scheduler", "default_workers", "evaluate_all", "evaluate_shown"]

#: What is evaluated: a point, or an array.
T = TypeVar("T")
#: A job's figures, or the sentence that says why it has none.
Answer = Figures | str
#: Of points, the `chunk` and `few` of `evaluate_all`.
CHUNK: Final = 16
FEW: Final = 96
#: Seconds that a scheduler, and its first worker, have to answer.
PATIENCE_S: Final = 20
#: An address of a Dask scheduler; "local" starts a cluster here.
ADDRESS: Final = r"local|(tcp|tls|ws|wss)://[^\s/]+(:[0-9]+)?"


def default_workers() -> int:
    """Return how many processes this one may keep busy."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_scheduler(address: str) -> None:
    """Refuse what is no address of a Dask scheduler."""
    if not re.fullmatch(ADDRESS, address):
        raise TernError(
            f"--scheduler must be local or an address like tcp://host:8786, not {address!r}"
        )


def evaluate_shown(
    evaluate: Callable[[T], Figures],
    jobs: list[T],
    *,
    doing: str,
    things: str,
    done: Callable[[dict[int, Answer]], None],
    **how: Any,
) -> None:
    """Evaluate jobs behind a bar on stderr; where that ends early, say how many are kept.

    Parameters
    ----------
    evaluate, jobs, done, how
        As in `evaluate_all`; what `done` is told is kept.
    doing, things : str
        What is done, and to what: "evaluating points", "points".
    """
    if not jobs:
        return
    kept = 0
    try:
        with progress(doing, len(jobs)) as advance:

            def tell(answers: dict[int, Answer]) -> None:
                nonlocal kept
                done(answers)
                kept += sum(isinstance(each, dict) for each in answers.values())
                advance(len(answers))

            evaluate_all(evaluate, jobs, done=tell, **how)
    except (KeyboardInterrupt, TernError):
        sys.stderr.write(f"{kept} of {len(jobs)} {things} are kept: the same command goes on\n")
        raise


def evaluate_all(
    evaluate: Callable[[T], Figures],
    jobs: list[T],
    *,
    workers: int,
    scheduler: str | None,
    done: Callable[[dict[int, Answer]], None],
    chunk: int = CHUNK,
    few: int = FEW,
) -> None:
    """Evaluate jobs and tell the answers, by a job's place in the list, as they come.

    Parameters
    ----------
    evaluate : callable
        A function that workers can import; raises TernError where a job has no figures.
    jobs : list
        Jobs that can be pickled.
    workers : int
        Processes, here or of a local Dask cluster; 1 evaluates in this process.
    scheduler : str or None
        "local", or the address of a Dask scheduler whose workers have this package.
    done : callable
        Gets the answers of each chunk.
    chunk : int
        Jobs that a worker gets at a time: a killed run loses no more of each.
    few : int
        Jobs up to which starting processes takes longer than evaluating them here.
    """
    chunks = [range(at, min(at + chunk, len(jobs))) for at in range(0, len(jobs), chunk)]
    if scheduler is None and (workers == 1 or len(jobs) <= few):
        for places in chunks:
            _, answers = evaluate_chunk(evaluate, [jobs[at] for at in places])
            done(dict(zip(places, answers, strict=True)))
        return
    with _executor(workers, scheduler) as executor, _translated():
        futures = {
            executor.submit(evaluate_chunk, evaluate, [jobs[at] for at in places]): places
            for places in chunks
        }
        try:
            for future in as_completed(futures):
                code, answers = future.result()
                _check_code(code)
                done(dict(zip(futures[future], answers, strict=True)))
        except BaseException:
            # Not of processes, which are ended: a pool that breaks must not find one cancelled.
            for future in futures if scheduler is not None else ():
                future.cancel()
            raise


def evaluate_chunk(evaluate: Callable[[T], Figures], jobs: list[T]) -> tuple[str, list[Answer]]:
    """Return the digest of the cost model that a worker has, and its answers."""
    answers: list[Answer] = []
    for job in jobs:
        try:
            answers.append(evaluate(job))
        except TernError as error:
            answers.append(str(error))
    return code_digest(), answers


def _check_code(code: str) -> None:
    if code != code_digest():
        raise TernError("every worker must have the cost model of this version, not of another")


@contextlib.contextmanager
def _executor(workers: int, scheduler: str | None) -> Iterator[Executor]:
    if scheduler is None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        # Not forked: the bar on stderr is drawn by a thread.
        context = multiprocessing.get_context("spawn")
        leash, end = context.Pipe(duplex=False)
        with (
            leash,
            end,
            ProcessPoolExecutor(workers, context, _start_worker, initargs=(leash,)) as pool,
        ):
            try:
                yield pool
            except BaseException:
                # What still runs is ended, not waited for: a synthesis takes minutes.
                end.close()
                raise
        return
    with _client(workers, scheduler) as client:
        yield client.get_executor(retries=2)


def _start_worker(leash: Any) -> None:
    """Leave Ctrl-C to the process that started this one, and end with it, however it ends.

    Parameters
    ----------
    leash : multiprocessing.connection.Connection
        Is closed at its other end by that process, or by the system when the process ends.
    """
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        leash.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _client(workers: int, scheduler: str) -> Iterator[Any]:
    """Connect to a Dask scheduler with a worker, or start a cluster of processes here."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise TernError("distributed (Dask) must be installed for --scheduler") from None
    with contextlib.ExitStack() as stack:
        address: Any = scheduler
        if scheduler == "local":
            address = stack.enter_context(
                LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")
            )
        try:
            client = stack.enter_context(Client(address, timeout=PATIENCE_S))
            client.wait_for_workers(1, timeout=PATIENCE_S)
        except (OSError, TimeoutError, ValueError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise TernError(
                f"--scheduler must be one that answers and has a worker, not {scheduler} ({reason})"
            ) from None
        yield client


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn what befalls workers into a sentence; what they evaluated so far is kept."""
    try:
        yield
    except BrokenExecutor as error:
        raise TernError(f"worker processes must live to the end, not die ({error})") from None
    except (ImportError, AttributeError) as error:
        raise TernError(f"every worker must have this package installed ({error})") from None
    except RuntimeError as error:
        if type(error).__name__ != "KilledWorker":
            raise
        raise TernError(f"Dask workers must live to the end, not die ({error})") from None
