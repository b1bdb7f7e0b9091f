"""Local files of multiple-choice questions, checked, and written as tasks of the harness.

A file holds one JSON object a line, all of one form:

* ``{"query": str, "choices": [str, ...], "gold": int}``: the right choice follows the query;
* ``{"context_options": [str, ...], "continuation": str, "gold": int}``: the continuation follows
  the right context (partial scoring, as in WinoGrande).
"""

import json
from pathlib import Path
from typing import Any, Final

from tern_hw.errors import TernError

__all__ = ["is_task_file", "read_questions", "task_file", "write_task"]

#: Of each form: the keys of its texts, and which of them lists the options.
FORMS: Final = {"query": ("query", "choices"), "continuation": ("continuation", "context_options")}
#: Scores of each form. A continuation is the same for all options, so dividing by its length
#: changes nothing: there is no acc_norm.
METRICS: Final = {"query": ("acc", "acc_norm"), "continuation": ("acc",)}
#: How the harness finds prompt, options and answer of each form.
DOCUMENTS: Final[dict[str, dict[str, str]]] = {
    "query": {
        "doc_to_text": "{{query}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
    },
    # Several contexts: the harness wants the answer as the "text", and the text as the "target".
    "continuation": {
        "doc_to_text": "{{gold}}",
        "doc_to_choice": "{{context_options}}",
        "doc_to_target": "{{continuation}}",
    },
}


def task_file(folder: Path, name: str) -> Path:
    """Return where a task's file lies."""
    return folder / f"{name}.jsonl"


def is_task_file(folder: Path | None, name: str) -> bool:
    """Tell whether a task is a file of the folder; a name with a path in it is none."""
    return folder is not None and Path(name).name == name and task_file(folder, name).is_file()


def read_questions(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return a file's form ("query" or "continuation") and its questions.

    Raises
    ------
    TernError
        If the file is empty or a line is not of the form; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise TernError(f"{path} must be UTF-8, which byte {error.start} is not") from None
    questions: list[dict[str, Any]] = []
    form = ""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            entry = _parse(line, path, number)
            form = form or next((key for key in FORMS if key in entry), "query")
            questions.append(_question(entry, form, path, number))
    if not questions:
        raise TernError(f"{path} must hold at least one question, not none")
    return form, questions


def write_task(path: Path, folder: Path, *, limit: int | None = None) -> None:
    """Write a file's questions and the harness' description of them, as task ``file_<name>``.

    Parameters
    ----------
    path : Path
        ``<name>.jsonl``.
    folder : Path
        Gets ``file_<name>.yaml``, its data, and the data as the datasets library keeps it.
    limit : int, optional
        Take only the first so many questions.
    """
    form, questions = read_questions(path)
    name = f"file_{path.stem}"
    data = (folder / f"{name}.jsonl").resolve()
    data.write_text("".join(json.dumps(q) + "\n" for q in questions[:limit]), encoding="utf-8")
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        # Its own cache folder, so that nothing of it stays in the user's.
        "dataset_kwargs": {
            "data_files": {"test": str(data)},
            "cache_dir": str(folder.resolve() / "datasets"),
        },
        "test_split": "test",
        "output_type": "multiple_choice",
        **DOCUMENTS[form],
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in METRICS[form]
        ],
        "metadata": {"version": 1.0},
    }
    # JSON is YAML, and leaves no doubt about quotes.
    (folder / f"{name}.yaml").write_text(json.dumps(task, indent=1), encoding="utf-8")


def _parse(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TernError(f"{path}, line {number} must be a JSON object ({error})") from None
    if not isinstance(entry, dict):
        raise TernError(f"{path}, line {number} must be a JSON object, not {line:.40}")
    return entry


def _question(entry: dict[str, Any], form: str, path: Path, number: int) -> dict[str, Any]:
    """Return the keys of a question that count, checked."""
    text, options = FORMS[form]
    where = f"{path}, line {number}:"
    if not isinstance(entry.get(text), str) or not entry[text]:
        raise TernError(f"{where} {text} must be a text, not {entry.get(text)!r:.40}")
    listed = entry.get(options)
    if not (
        isinstance(listed, list)
        and len(listed) > 1
        and all(isinstance(option, str) and option for option in listed)
    ):
        raise TernError(f"{where} {options} must be two texts or more, not {listed!r:.60}")
    gold = entry.get("gold")
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(listed):
        raise TernError(f"{where} gold must be from 0 to {len(listed) - 1}, not {gold!r:.40}")
    return {text: entry[text], options: listed, "gold": gold}
