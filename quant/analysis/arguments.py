"""The command line of `quant.analyze`: one subcommand a question. Imports nothing heavy."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tern_hw.cli import ArgumentParser, integer

__all__ = ["parse"]

#: Answers a question as the command line puts it; returns the exit status.
Answer = Callable[[argparse.Namespace], int]

EPILOG: Final = """examples:
  python -m quant.analyze asymmetry smollm2 --plot pictures
  python -m quant.analyze codes step-0 step-500 --json
  python -m quant.analyze outliers smollm2 trained --method dlt --options codes=nearest
  python -m quant.analyze clustering smollm2 trained-mse trained-off
  python -m quant.analyze planes fdb-folder

MODEL is what quant.export takes: a model folder, a GGUF file, a hub id, smollm2 or tiny; FOLDER is
a prepared or trained one, with its quantisers. Each question has a --help of its own."""

MODEL: Final = "a model folder, a GGUF file, a hub id, smollm2 (from a PyPI package) or tiny"


def parse(argv: Sequence[str] | None, answers: Mapping[str, Answer]) -> argparse.Namespace:
    """Read a command line; `answers` are the functions that answer each question, by its name."""
    parser = ArgumentParser(
        prog="python -m quant.analyze",
        description="Measure what ternarisation meets in a model, and what it makes of it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    questions = parser.add_subparsers(dest="question", required=True, metavar="QUESTION")
    _add_asymmetry(questions)
    _add_codes(questions)
    _add_outliers(questions)
    _add_clustering(questions)
    _add_planes(questions)
    for name, question in questions.choices.items():
        question.set_defaults(answer=answers[name])
        question.add_argument("--json", action="store_true", help="print the figures as JSON")
        question.add_argument("--plot", metavar="FOLDER", help="write pictures (PNG) there")
    return parser.parse_args(argv)


def _add_asymmetry(questions: Any) -> None:
    question = questions.add_parser(
        "asymmetry",
        help="how lopsided the groups of a model's weights are, and what a shift gains",
        description="Mean, skewness and one-sided outliers of every group of the block linears, "
        "and the weight error of symmetric ternary against DLT.",
        epilog="example: python -m quant.analyze asymmetry smollm2 --group-size 64",
    )
    question.add_argument("model", metavar="MODEL", help=MODEL)
    question.add_argument(
        "--group-size", default="128", help="inputs a group, or row (default: 128)"
    )
    question.add_argument(
        "--sigma",
        type=float,
        default=4.0,
        help="distance of an outlier from its group's mean, in standard deviations (default: 4)",
    )
    _add_layers(question)


def _add_codes(questions: Any) -> None:
    question = questions.add_parser(
        "codes",
        help="the trits of prepared folders, their dead zone, and their flow from one to the next",
        description="Shares of the codes, bits a weight, entropy and dead zone of each folder; for "
        "two or more, how the codes flow from each to the next.",
        epilog="example: python -m quant.analyze codes step-0 step-100 step-500",
    )
    question.add_argument("folders", nargs="+", metavar="FOLDER", help="prepared or trained models")
    _add_layers(question)


def _add_outliers(questions: Any) -> None:
    question = questions.add_parser(
        "outliers",
        help="outlier channels of the activations, and the gradients of MSE and OFF on them",
        description="Outlier channels of the residual stream after each block, and for each "
        "student the share of the gradients of MSE and OFF (1 - cos) that falls on them.",
        epilog="example: python -m quant.analyze outliers smollm2 trained --text book.txt",
    )
    _add_students(question)
    question.add_argument(
        "--text", metavar="FILE", help="UTF-8 text (default: a chapter of a novel)"
    )
    question.add_argument("--windows", type=integer, default=8, help="windows of text (default: 8)")
    question.add_argument(
        "--tokens", type=integer, help="tokens a window (default: 256, or the model's context)"
    )
    question.add_argument(
        "--top",
        type=float,
        default=0.01,
        help="share of channels that count as outliers (default: 0.01)",
    )


def _add_clustering(questions: Any) -> None:
    question = questions.add_parser(
        "clustering",
        help="whether words of one meaning lie together, in a teacher and its students",
        description="Silhouette over word groups, neighbours shared with the teacher, and CKA.",
        epilog="example: python -m quant.analyze clustering smollm2 ptq trained-off --block 20",
    )
    _add_students(question)
    question.add_argument(
        "--block", type=integer, help="features after this block, from 0 (default: after each)"
    )
    question.add_argument(
        "--neighbours", type=integer, default=5, help="nearest words compared (default: 5)"
    )


def _add_planes(questions: Any) -> None:
    question = questions.add_parser(
        "planes",
        help="correlation, residual alignment and sparsity of FDB's two planes",
        description="Whether the second plane of FDB mends what the first leaves.",
        epilog="example: python -m quant.analyze planes fdb-folder --plot pictures",
    )
    question.add_argument("folder", metavar="FOLDER", help="a model prepared by fdb")
    _add_layers(question)


def _add_layers(question: argparse.ArgumentParser) -> None:
    question.add_argument(
        "--layers", nargs="+", default=["*"], metavar="GLOB", help="only layers of these names"
    )


def _add_students(question: argparse.ArgumentParser) -> None:
    question.add_argument("model", metavar="MODEL", help=f"the teacher: {MODEL}")
    question.add_argument(
        "folders", nargs="*", metavar="FOLDER", help="students: prepared or trained models"
    )
    question.add_argument(
        "--method", help="one more student: the teacher quantised by this, untrained"
    )
    question.add_argument(
        "--options", nargs="+", default=[], metavar="NAME=VALUE", help="the method's options"
    )
