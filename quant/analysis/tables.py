"""The analysis' reports as tables of text."""

import sys
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from quant.analysis.asymmetry import AsymmetryReport
from quant.analysis.clustering import Clustering
from quant.analysis.codes import NEAR, CodesReport, FlowRow
from quant.analysis.outliers import STANDS_OUT, BlockOutliers, StudentOutliers
from quant.analysis.planes import PlanesReport

__all__ = [
    "print_asymmetry",
    "print_clustering",
    "print_codes",
    "print_flow",
    "print_outliers",
    "print_planes",
]


#: Characters a line where the output is no terminal.
WIDTH: Final = 120


def print_asymmetry(report: AsymmetryReport, origin: str) -> None:
    """Print the groups' balance, then the fits' errors."""
    sigma = f"{report.sigma:g} sd"
    rows = [
        [
            row.kind,
            str(row.groups),
            f"{row.mean_over_std[0]:.3f} / {row.mean_over_std[1]:.3f}",
            f"{row.shifted:.1%}",
            f"{row.skewness[0]:.2f} / {row.skewness[1]:.2f}",
            f"{row.skewed:.1%}",
            f"{row.one_sided:.2%}",
            f"{row.one_sided_sigma:.2f} sd" if row.one_sided else "-",
            f"{row.two_sided:.2%}",
        ]
        for row in report.groups
    ]
    columns = ("groups", "|mean|/sd 50/95 %", "shifted", "|skew| 50/95 %", "skewed")
    outliers = ("one-sided", "their furthest", "two-sided")
    _print(f"Groups of {report.group_size} in {origin}", ("layer", *columns, *outliers), rows)
    print(
        f"Shifted, skewed: beyond what 5 % of groups of independent normal weights reach. "
        f"One-sided: a weight\nmore than {sigma} from the group's mean on one side only "
        f"({report.one_sided_by_chance:.2%} by chance). sd: the group's standard deviation."
    )
    errors = [
        [
            row.kind,
            f"{row.threshold_scale:.2%}",
            f"{row.threshold_shift:.2%}",
            f"{row.symmetric:.2%}",
            f"{row.symmetric_half:.2%}",
            f"{row.dlt:.2%}",
            f"{row.shift_part:.0%}",
        ]
        for row in (*report.errors, report.normal)
    ]
    names = (
        "threshold, scale",
        "threshold, + shift",
        "symmetric",
        "symmetric, G/2",
        "DLT",
        "shift's part",
    )
    _print("Weight error |W - D|^2 / |W|^2", ("layer", *names), errors)
    total = report.errors[-1]
    print(
        f"Bits a weight: {total.bits_symmetric:.3f} without a shift, {total.bits_dlt:.3f} with one "
        f"(a shift costs 16/G), {total.bits_half:.3f} symmetric in groups\nof half the size: equal "
        "bits but for short groups. Symmetric is the optimum over all codes and scales. "
        "Shift's part: of the\ngain from the threshold's codes and a scale to DLT."
    )


def print_codes(report: CodesReport) -> None:
    """Print one prepared folder's codes by kind of layer."""
    rows = [
        [
            row.kind,
            *(f"{share:.1%}" for share in row.shares),
            f"{row.entropy_bits:.3f}",
            f"{row.bits_per_weight:.3f}",
            f"{row.empty_groups:.2%}",
            _optional(row.dead_distance, ".3f"),
            _optional(row.dead_near, ".1%"),
            _optional(row.near, ".1%"),
        ]
        for row in report.rows
    ]
    names = ("-1", "0", "+1", "entropy, bits", "bits a weight", "empty groups")
    dead = ("dead: distance, alpha", "dead: near", "all: near")
    _print(f"Codes of {report.label} ({report.method})", ("layer", *names, *dead), rows)
    print(
        "Bits a weight count scales and shifts. Dead: weights of code 0, and their mean distance "
        f"to the nearer threshold;\nnear: below {NEAR} alpha, the group's scale."
    )


def print_flow(before: str, after: str, rows: Sequence[FlowRow]) -> None:
    """Print how codes changed from one folder to another."""
    trits = ("-", "0", "+")
    names = [f"{one}>{other}" for one in trits for other in trits if one != other]
    cells = []
    for row in rows:
        moves = [row.matrix[i][j] for i in range(3) for j in range(3) if i != j]
        sums = (f"{row.changed:.2%}", f"{row.sign_changed:.3%}", f"{row.net_to_zero:+.2%}")
        cells.append([row.kind, *(f"{move:.2%}" for move in moves), *sums])
    title = f"Flow of codes from {before} to {after}, share of all weights"
    _print(title, ("layer", *names, "changed", "sign turned", "net to 0"), cells)


def print_outliers(
    blocks: Sequence[BlockOutliers],
    students: Sequence[StudentOutliers],
    share: float,
    tokens: int,
    origin: str,
) -> None:
    """Print the teacher's outliers, then each student's gradients, block by block."""
    rows = [
        [
            str(row.block),
            f"{row.peak:.1f}",
            f"{row.peak_later:.1f}",
            str(row.standing_out),
            f"{row.energy:.1%}",
        ]
        for row in blocks
    ]
    names = (
        "block",
        "max|x| / median rms",
        "without first tokens",
        "channels standing out",
        "top: energy",
    )
    _print(f"Residual stream of {origin}, {tokens} tokens", names, rows)
    print(
        f"Top: the {share:.0%} of channels of the largest root mean square (rms). "
        f"Standing out: rms {STANDS_OUT:g} times the median's or more."
    )
    for student in students:
        _print_student(blocks, student)
    if students:
        print(
            "Share: of a token's squared gradient on the top channels, mean over tokens; pooled: "
            "all tokens together, with\nits standard deviation over windows; turns: how often a "
            "top channel's summed gradient changes sign from a window\nto the next; tokens: share "
            "that the 1 % of tokens with the largest gradients carry."
        )


def _print_student(blocks: Sequence[BlockOutliers], student: StudentOutliers) -> None:
    names = ["block", "1 - cos"]
    for loss in ("MSE", "OFF"):
        names += [f"{loss} share", "pooled", "turns", "tokens"]
    rows = []
    for index, row in enumerate(blocks):
        cells = [str(row.block), f"{student.off_loss[index]:.4f}"]
        for pull in (student.mse[index], student.off[index]):
            cells += [
                f"{pull.share:.1%}",
                f"{pull.pooled:.1%} ± {pull.spread:.1%}",
                f"{pull.sign_changes:.0%}",
                f"{pull.top_tokens:.1%}",
            ]
        rows.append(cells)
    _print(f"Gradients of MSE and OFF for {student.label}", names, rows)


def print_clustering(
    models: Sequence[Clustering], blocks: Sequence[int], words: int, groups: int, k: int
) -> None:
    """Print the measures block by block; the first model is the teacher."""
    names = ["block", f"silhouette: {models[0].label}"]
    for model in models[1:]:
        names += [f"silhouette: {model.label}", "overlap", "CKA (by chance)"]
    rows = []
    for index, block in enumerate(blocks):
        cells = [str(block), f"{models[0].silhouette[index]:+.3f}"]
        for model in models[1:]:
            chance = model.cka_by_chance[index]
            cells += [
                f"{model.silhouette[index]:+.3f}",
                f"{model.overlap[index]:.1%}",
                f"{model.cka[index]:.3f} ({chance:.3f})",
            ]
        rows.append(cells)
    _print(f"Clustering of {words} words in {groups} groups", names, rows)
    print(
        f"Overlap: share of a word's {k} nearest words that are also its nearest in the teacher "
        f"({k / (words - 1):.1%} by chance). CKA: linear,\nwith the teacher; by chance: words "
        "paired at random."
    )


def print_planes(report: PlanesReport) -> None:
    """Print FDB's planes by kind of layer."""
    rows = [
        [
            row.kind,
            f"{row.correlation:+.3f}",
            f"{row.alignment:+.3f}",
            *(f"{zeros:.1%}" for zeros in row.zeros),
            *(f"{level:.1%}" for level in row.levels),
            f"{row.error:.2%}",
            f"{row.bits_per_weight:.3f}",
        ]
        for row in report.rows
    ]
    names = ("correlation", "alignment", "zeros b1", "zeros b2", "at 0", "a1", "a2", "a1 + a2")
    _print(f"Planes of {report.label}", ("layer", *names, "error", "bits a weight"), rows)
    print(
        "Correlation: of a1*b1 with a2*b2 over a layer's weights. Alignment: cosine of a2*b2 with "
        "w - a1*b1. Error: |W - W_q|^2 / |W|^2."
    )


def _optional(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _print(title: str, columns: Iterable[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title)
    for index, column in enumerate(columns):
        # A layer's name stays whole; figures fold where the line is short.
        table.add_column(
            column, justify="right" if index else "left", overflow="fold", no_wrap=not index
        )
    for row in rows:
        if row[0] == "all":
            table.add_section()
        table.add_row(*row, end_section=row[0] == "all")
    # Twelve columns need more than the 80 characters that a pipe is taken to have.
    width = None if sys.stdout.isatty() else WIDTH
    Console(file=sys.stdout, width=width).print(table)
