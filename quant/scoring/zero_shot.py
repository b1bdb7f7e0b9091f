"""Zero-shot tasks through lm-evaluation-harness itself: its own tasks by name, and local files."""

import contextlib
import copy
import difflib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.errors import UnreachableError
from quant.models.checkpoints import quiet
from quant.scoring.task_files import is_task_file, read_questions, task_file, write_task
from tern_hw.errors import TernError

__all__ = ["TaskScore", "ZeroShot", "check_tasks", "task_names", "zero_shot"]

#: The scores that are reported, as the harness calls them.
METRICS: Final = ("acc", "acc_norm")


@dataclass(frozen=True)
class TaskScore:
    """A model's score on one task."""

    task: str
    #: "file" or "harness".
    origin: str
    #: Questions that were asked.
    items: int
    #: Share of questions whose likeliest choice is the right one.
    acc: float | None
    #: Standard error of that share.
    acc_stderr: float | None
    #: The same with each choice's log-likelihood divided by its length in characters, as this
    #: version of the harness has it; None where a task does not have it.
    acc_norm: float | None
    acc_norm_stderr: float | None


@dataclass(frozen=True)
class ZeroShot:
    """Scores, and what computed them."""

    #: Version of lm-evaluation-harness.
    lm_eval: str
    scores: list[TaskScore]


def task_names(names: Sequence[str], folder: Path | None) -> list[str]:
    """Return the tasks to run: those named, or every file of the folder where none is.

    Raises
    ------
    TernError
        If the folder is none, or holds no task.
    """
    if folder is None:
        return list(names)
    if not folder.is_dir():
        raise TernError(f"--task-folder must be a folder of JSONL files, not {folder}")
    found = sorted(path.stem for path in folder.glob("*.jsonl"))
    if not found:
        raise TernError(f"--task-folder must hold JSONL files, not none as {folder}")
    return list(names) or found


def check_tasks(names: Sequence[str], folder: Path | None) -> None:
    """Refuse at once what `zero_shot` would refuse of tasks and files, but for data of others.

    Raises
    ------
    TernError
        If a task is unknown, or a file is not of the form.
    """
    for name in names:
        if folder is not None and is_task_file(folder, name):
            read_questions(task_file(folder, name))
    foreign = [name for name in names if not is_task_file(folder, name)]
    if foreign:
        from lm_eval.tasks import TaskManager

        with _subdued():
            _check_known(foreign, TaskManager().all_tasks)


def zero_shot(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    *,
    folder: Path | None = None,
    limit: int | None = None,
    batch: int = 8,
) -> ZeroShot:
    """Score a model on multiple-choice tasks without examples in the prompt.

    Parameters
    ----------
    model : PreTrainedModel
        With plain weights.
    tokenizer : PreTrainedTokenizerBase
    tasks : sequence of str
        Files of the folder without their ending, or tasks of the harness; a file wins.
    folder : Path, optional
        Holds ``<task>.jsonl`` in the forms that `quant.scoring.task_files` describes.
    limit : int, optional
        Take only the first so many questions of each task.
    batch : int
        Questions of one forward pass.

    Raises
    ------
    UnreachableError
        If the data of a task of the harness is not to be had.
    TernError
        If a task is unknown, or a file is not of the form.
    """
    for name, value in (("limit", 1 if limit is None else limit), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise TernError(f"{name} must be a positive integer, not {value!r}")
    local = [name for name in tasks if is_task_file(folder, name)]
    foreign = [name for name in tasks if name not in local]
    with tempfile.TemporaryDirectory() as scratch, _subdued():
        for name in local:
            assert folder is not None
            write_task(task_file(folder, name), Path(scratch), limit=limit)
        results = _evaluate(model, tokenizer, local, foreign, Path(scratch), limit, batch)
    scores = [_score(name, results, name in local) for name in tasks]
    return ZeroShot(version("lm_eval"), scores)


def _evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    local: list[str],
    foreign: list[str],
    scratch: Path,
    limit: int | None,
    batch: int,
) -> dict[str, Any]:
    """Let the harness run the tasks; returns its results."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    # Its own few thousand tasks take seconds to list.
    manager = TaskManager(include_path=str(scratch), include_defaults=bool(foreign))
    _check_known(foreign, manager.all_tasks)
    # A copy: the harness gives a tokenizer a padding token where it has none.
    words = copy.deepcopy(tokenizer)
    wrapped = HFLM(
        pretrained=model, tokenizer=words, batch_size=batch, prefix_token_id=_prefix(tokenizer)
    )
    try:
        results = simple_evaluate(
            model=wrapped,
            tasks=[*(f"file_{name}" for name in local), *foreign],
            task_manager=manager,
            limit=limit,
            log_samples=False,
        )
    except (OSError, ValueError) as error:
        # Without tasks of the harness nothing is fetched: what fails is ours.
        if not foreign or isinstance(error, TernError):
            raise
        reason = str(error).strip().partition("\n")[0].rstrip(".:") or type(error).__name__
        raise UnreachableError(
            f"data of the tasks {', '.join(foreign)} must be reachable or in the hub's cache "
            f"({reason}); files of questions may be given by --task-folder instead"
        ) from error
    assert results is not None
    return results


def _prefix(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return what stands for an empty prompt where the harness finds nothing itself.

    No question of a file has an empty prompt, but the harness wants the token all the same.
    """
    return 0 if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None else None


def _check_known(names: list[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (there is {close[0]})" if close else ""
            raise TernError(
                f"task must be a JSONL file of --task-folder or one of lm-evaluation-harness, "
                f"not {name!r}{hint}"
            )


def _score(name: str, results: dict[str, Any], local: bool) -> TaskScore:
    key = f"file_{name}" if local else name
    found = results["results"][key]
    values = {}
    for metric in METRICS:
        values[metric] = found.get(f"{metric},none")
        values[f"{metric}_stderr"] = _number(found.get(f"{metric}_stderr,none"))
    counts = results["n-samples"].get(key)
    items = counts["effective"] if counts else 0  # a group's own row has none
    return TaskScore(name, "file" if local else "harness", items, **values)


def _number(value: Any) -> float | None:
    """Return a standard error; the harness has "N/A" where there is none."""
    return float(value) if isinstance(value, int | float) else None


@contextlib.contextmanager
def _subdued() -> Iterator[None]:
    """Keep the harness' and datasets' notices silent; the harness' own bar stays."""
    from datasets.utils import logging as datasets_logging
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar

    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    shown = datasets_logging.is_progress_bar_enabled()
    disable_progress_bar()
    try:
        with quiet():
            yield
    finally:
        if shown:
            enable_progress_bar()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
