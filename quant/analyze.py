"""`python -m quant.analyze`: what ternarisation meets in a model, and what it makes of it.

Asymmetry of the weights, codes and their flow, activation outliers and the losses' gradients on
them, semantic clustering, and the planes of FDB: as tables, JSON and pictures.
"""

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from quant.analysis.arguments import parse
from tern_hw.cli import parse_group_size, progress, run
from tern_hw.errors import TernError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from quant.analysis.models import QuantizedLayer, Student
    from quant.models.prepared import Prepared
    from quant.models.sources import ModelSource

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = parse(argv, ANSWERS)
    # Threads that wait for work asleep cost a busy machine nothing; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if arguments.plot is not None:
        _check_plot(arguments.plot)
    answer: Callable[[argparse.Namespace], int] = arguments.answer
    return answer(arguments)


def _asymmetry(arguments: argparse.Namespace) -> int:
    group_size = parse_group_size(arguments.group_size)
    if group_size != "row" and group_size < 2:
        raise TernError(f'--group-size must be "row" or at least 2, not {group_size}')
    from quant.analysis.asymmetry import asymmetry
    from quant.analysis.tables import print_asymmetry
    from quant.models.linears import block_linears, select_linears
    from quant.models.sources import find_source

    source = find_source(arguments.model, progress)
    linears = select_linears(block_linears(source.model), arguments.layers)
    report, moments = asymmetry(
        source.model, linears, group_size=group_size, sigma=arguments.sigma, progress=progress
    )

    def draw() -> "Mapping[str, Figure]":
        from quant.analysis.weight_figures import draw_asymmetry

        return draw_asymmetry(report, moments, source.origin)

    summary = {"model": source.origin, **dataclasses.asdict(report)}
    return _deliver(arguments, summary, lambda: print_asymmetry(report, source.origin), draw)


def _codes(arguments: argparse.Namespace) -> int:
    from quant.analysis.codes import code_flow, codes_of
    from quant.analysis.models import labels_of
    from quant.analysis.tables import print_codes, print_flow

    labels = labels_of(arguments.folders)
    results = []
    for label, folder in zip(labels, arguments.folders, strict=True):
        prepared, layers = _open_layers(folder, arguments.layers)
        results.append(codes_of(label, prepared.method.name, layers, progress))
    reports = [report for report, _ in results]
    steps = range(len(labels) - 1)
    flows = [(labels[i], labels[i + 1], code_flow(results[i][1], results[i + 1][1])) for i in steps]

    def show() -> None:
        for report in reports:
            print_codes(report)
        for flow in flows:
            print_flow(*flow)

    def draw() -> "Mapping[str, Figure]":
        from quant.analysis.weight_figures import draw_codes, draw_flow

        return {**draw_codes(reports), **(draw_flow(flows) if flows else {})}

    summary = {
        "folders": [dataclasses.asdict(report) for report in reports],
        "flow": [
            {"before": before, "after": after, "rows": [dataclasses.asdict(row) for row in rows]}
            for before, after, rows in flows
        ],
    }
    return _deliver(arguments, summary, show, draw)


def _outliers(arguments: argparse.Namespace) -> int:
    if not 0 < arguments.top <= 1:
        raise TernError(f"--top must be above 0 and at most 1, not {arguments.top}")
    text = _text(arguments.text)
    from quant.analysis.features import text_windows, window_features
    from quant.analysis.models import open_teacher
    from quant.analysis.outliers import channel_outliers, student_outliers
    from quant.analysis.tables import print_outliers

    source = open_teacher(arguments.model, progress)
    model = source.model.float()
    ids = text_windows(
        model, source.tokenizer, text, windows=arguments.windows, tokens=arguments.tokens
    )
    teacher = window_features(model, ids, progress)
    blocks = [channel_outliers(i, each, arguments.top) for i, each in enumerate(teacher)]
    students = [
        student_outliers(
            student.label, window_features(student.model, ids, progress), teacher, arguments.top
        )
        for student in _students(arguments, source)
    ]

    def draw() -> "Mapping[str, Figure]":
        from quant.analysis.feature_figures import draw_outliers

        return draw_outliers(blocks, students, arguments.top, source.origin)

    summary = {
        "model": source.origin,
        "windows": ids.shape[0],
        "tokens": ids.shape[1],
        "top": arguments.top,
        "blocks": [dataclasses.asdict(block) for block in blocks],
        "students": [dataclasses.asdict(student) for student in students],
    }

    def show() -> None:
        print_outliers(blocks, students, arguments.top, ids.numel(), source.origin)

    return _deliver(arguments, summary, show, draw)


def _clustering(arguments: argparse.Namespace) -> int:
    from quant.analysis.clustering import clustering_of, word_features, word_labels
    from quant.analysis.models import block_modules, open_teacher
    from quant.analysis.tables import print_clustering
    from quant.analysis.words import TEMPLATE, WORD_GROUPS

    source = open_teacher(arguments.model, progress)
    count = len(block_modules(source.skeleton))
    blocks = _blocks(arguments.block, count)
    labels, k = word_labels(), arguments.neighbours
    if not 1 <= k < len(labels):
        raise TernError(f"--neighbours must be from 1 to {len(labels) - 1}, not {k}")
    model = source.model.float()
    features = [word_features(model, source.tokenizer, progress=progress)]
    names = ["teacher"]
    for student in _students(arguments, source):
        features.append(word_features(student.model, source.tokenizer, progress=progress))
        names.append(student.label)
    chosen = [[every[block] for block in blocks] for every in features]
    models = [
        clustering_of(name, ours, chosen[0], labels, k)
        for name, ours in zip(names, chosen, strict=True)
    ]

    def draw() -> "Mapping[str, Figure]":
        from quant.analysis.feature_figures import draw_clustering

        return draw_clustering(models, blocks, chosen, labels, k)

    summary = {
        "model": source.origin,
        "template": TEMPLATE,
        "words": WORD_GROUPS,
        "neighbours": k,
        "blocks": blocks,
        "models": [dataclasses.asdict(model) for model in models],
    }

    def show() -> None:
        print_clustering(models, blocks, len(labels), len(WORD_GROUPS), k)

    return _deliver(arguments, summary, show, draw)


def _planes(arguments: argparse.Namespace) -> int:
    from quant.analysis.models import labels_of
    from quant.analysis.planes import planes_of
    from quant.analysis.tables import print_planes

    _, layers = _open_layers(arguments.folder, arguments.layers)
    report = planes_of(labels_of([arguments.folder])[0], layers, progress)

    def draw() -> "Mapping[str, Figure]":
        from quant.analysis.weight_figures import draw_planes

        return draw_planes(report)

    return _deliver(arguments, dataclasses.asdict(report), lambda: print_planes(report), draw)


def _open_layers(folder: str, globs: Sequence[str]) -> "tuple[Prepared, list[QuantizedLayer]]":
    from quant.analysis.models import open_prepared, quantized_layers

    prepared = open_prepared(folder)
    return prepared, quantized_layers(prepared, globs)


def _students(arguments: argparse.Namespace, source: "ModelSource") -> "list[Student]":
    """Open the students that a command line names, in its order, the untrained one first."""
    from quant.analysis.models import labels_of, prepare_student, prepared_student
    from quant.methods.options import parse_options

    if arguments.options and not arguments.method:
        raise TernError("--options must be given with --method, not alone")
    students = []
    if arguments.method:
        config = parse_options(arguments.method, arguments.options)
        students.append(prepare_student(source.model, arguments.method, config, progress))
    for label, folder in zip(labels_of(arguments.folders), arguments.folders, strict=True):
        students.append(prepared_student(folder, label, source.model))
    return students


def _blocks(block: int | None, count: int) -> list[int]:
    if block is None:
        return list(range(count))
    if not 0 <= block < count:
        raise TernError(f"--block must be from 0 to {count - 1}, not {block}")
    return [block]


def _text(file: str | None) -> str:
    """Read the text to run a model over."""
    if file is None:
        from quant.text.excerpt import excerpt

        return excerpt()
    try:
        return Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TernError(f"--text must be a UTF-8 file, not {file} ({error.reason})") from None


def _check_plot(folder: str) -> None:
    """Refuse now what writing the pictures would refuse after all the work."""
    path = Path(folder)
    if not folder or (path.exists() and not path.is_dir()):
        raise TernError(f"--plot must be a folder, not {folder!r}")
    if not path.exists() and not path.resolve().parent.is_dir():
        raise TernError(f"--plot must lie in a folder that exists, not at {folder}")


def _deliver(
    arguments: argparse.Namespace,
    summary: dict[str, Any],
    show: Callable[[], None],
    draw: "Callable[[], Mapping[str, Figure]]",
) -> int:
    """Write the pictures if asked for, then print the table or the JSON."""
    pictures: list[str] = []
    if arguments.plot is not None:
        from quant.analysis.figures import save_figures

        pictures = save_figures(Path(arguments.plot), draw())
    if arguments.json:
        print(
            json.dumps({"question": arguments.question, **summary, "pictures": pictures}, indent=2)
        )
        return 0
    show()
    for picture in pictures:
        print(picture)
    return 0


ANSWERS: Final = {
    "asymmetry": _asymmetry,
    "codes": _codes,
    "outliers": _outliers,
    "clustering": _clustering,
    "planes": _planes,
}

if __name__ == "__main__":
    raise SystemExit(run(main))
