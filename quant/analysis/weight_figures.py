"""Pictures of weights: asymmetry, codes, their flow, and FDB's planes."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from quant.analysis.asymmetry import AsymmetryReport
from quant.analysis.codes import BIN, NEAR, CodesReport, FlowRow
from quant.analysis.figures import COLOURS, new_figure, note
from quant.analysis.planes import PlanesReport

__all__ = ["draw_asymmetry", "draw_codes", "draw_flow", "draw_planes"]

TRITS = ("-1", "0", "+1")


def draw_asymmetry(report: AsymmetryReport, moments: Tensor, origin: str) -> dict[str, Figure]:
    """Draw the groups' moments beside what chance gives, and the fits' errors."""
    return {
        "asymmetry_groups": _moments(report, moments, origin),
        "asymmetry_errors": _errors(report, origin),
    }


def _moments(report: AsymmetryReport, moments: Tensor, origin: str) -> Figure:
    size = report.inputs
    title = f"How lopsided groups of {size} weights are ({len(moments)} full groups)\n{origin}"
    figure, axes = new_figure(title, 3)
    expected = (1 / math.sqrt(size), math.sqrt(6 / size))
    names = ("mean / standard deviation", "skewness")
    for index, (name, spread) in enumerate(zip(names, expected, strict=True)):
        _histogram(axes[index], moments[:, index].numpy(), spread)
        axes[index].set(xlabel=f"{name} of a group", ylabel="density")
        axes[index].legend(fontsize=8)
    furthest = moments[:, 2:4].amax(-1).numpy()
    nearer = moments[:, 2:4].amin(-1).numpy()
    bins = np.linspace(0, max(float(furthest.max()), report.sigma) * 1.02, 80).tolist()
    for values, colour, label in (
        (furthest, COLOURS[4], "on the longer side"),
        (nearer, COLOURS[0], "on the shorter side"),
    ):
        axes[2].hist(values, bins, color=colour, alpha=0.7, label=label)
    axes[2].axvline(report.sigma, color="black", linestyle="--", label="outlier from here on")
    axes[2].set(
        xlabel="furthest weight from the mean, standard deviations", ylabel="groups", yscale="log"
    )
    axes[2].legend(fontsize=8)
    return figure


def _histogram(axes: Axes, values: "np.ndarray", spread: float) -> None:
    """Draw a histogram and the normal curve that independent normal weights would give."""
    edge = max(4 * spread, float(np.quantile(np.abs(values), 0.999)))
    bins = np.linspace(-edge, edge, 101).tolist()
    axes.hist(
        values.clip(-edge, edge), bins, density=True, color=COLOURS[0], alpha=0.75, label="groups"
    )
    x = np.linspace(-edge, edge, 400)
    curve = np.exp(-((x / spread) ** 2) / 2) / (spread * math.sqrt(2 * math.pi))
    axes.plot(x, curve, color="black", linestyle="--", label="independent normal weights")


def _errors(report: AsymmetryReport, origin: str) -> Figure:
    rows = [*report.errors, report.normal]
    figure, (axes,) = new_figure(
        f"Weight error of ternary fits, group size {report.group_size}\n{origin}",
        width=max(7.0, 1.25 * len(rows)),
        height=4.8,
    )
    total = report.errors[-1]
    series = (
        (
            "threshold_scale",
            f"threshold 0.7 mean|w|, scale ({total.bits_symmetric:.3f} bits a weight)",
        ),
        ("threshold_shift", f"the same codes, scale and shift ({total.bits_dlt:.3f} bits)"),
        ("symmetric", f"best codes and scale, no shift ({total.bits_symmetric:.3f} bits)"),
        ("symmetric_half", f"the same, groups of half the size ({total.bits_half:.3f} bits)"),
        ("dlt", f"DLT: scale, shift and codes fitted ({total.bits_dlt:.3f} bits)"),
    )
    places = np.arange(len(rows))
    for index, (name, label) in enumerate(series):
        heights = [getattr(row, name) for row in rows]
        axes.bar(places + (index - 2) * 0.16, heights, 0.16, color=COLOURS[index], label=label)
    axes.set_xticks(places, [row.kind for row in rows], rotation=20, fontsize=8)
    lowest = min(row.dlt for row in rows)
    highest = max(row.threshold_scale for row in rows)
    axes.set_ylim(0.9 * lowest, 1.06 * highest)
    axes.set(ylabel="|W - D|² / |W|² (the axis does not start at 0)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure


def draw_codes(reports: Sequence[CodesReport]) -> dict[str, Figure]:
    """Draw the shares of the codes by kind of layer, and the depth of the dead zone."""
    title = "Shares of the codes, by kind of layer"
    figure, panels = new_figure(title, len(reports), width=5.5, height=4.4)
    for axes, report in zip(panels, reports, strict=True):
        kinds = [row.kind for row in report.rows]
        left = np.zeros(len(kinds))
        for index, trit in enumerate(TRITS):
            widths = np.array([row.shares[index] for row in report.rows])
            axes.barh(kinds, widths, left=left, color=COLOURS[index], label=f"code {trit}")
            # The first colour is dark.
            ink = "black" if index else "white"
            for place, (start, width) in enumerate(zip(left, widths, strict=True)):
                middle = start + width / 2
                axes.text(middle, place, f"{width:.1%}", ha="center", va="center", color=ink)
            left += widths
        axes.set(title=f"{report.label} ({report.method})", xlabel="share of weights", xlim=(0, 1))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.invert_yaxis()
        axes.grid(visible=False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figures = {"codes_shares": figure}
    if any(report.dead_histogram for report in reports):
        figures["codes_dead_zone"] = _dead_zone(reports)
    return figures


def _dead_zone(reports: Sequence[CodesReport]) -> Figure:
    figure, (axes,) = new_figure("How far weights of code 0 are from a threshold", width=6.5)
    for index, report in enumerate(reports):
        if report.dead_histogram:
            edges = BIN * np.arange(len(report.dead_histogram) + 1)
            axes.stairs(
                report.dead_histogram,
                edges,
                color=COLOURS[index % 8],
                linewidth=1.6,
                label=report.label,
            )
    axes.axvline(NEAR, color="black", linestyle="--", label=f"near: below {NEAR} alpha")
    used = [i for report in reports for i, share in enumerate(report.dead_histogram) if share]
    axes.set(
        xlim=(0, BIN * (max(used) + 3)),
        xlabel="distance to the nearer threshold, in scales (alpha) of its group",
        ylabel=f"share of weights of code 0, per {BIN} alpha",
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(fontsize=8)
    return figure


def draw_flow(flows: Sequence[tuple[str, str, Sequence[FlowRow]]]) -> dict[str, Figure]:
    """Draw the transitions over all layers between each folder and the next."""
    figure, panels = new_figure(
        "Flow of codes: share of all weights by code before and after", len(flows), height=4.6
    )
    for axes, (before, after, rows) in zip(panels, flows, strict=True):
        row = rows[-1]
        matrix = np.array(row.matrix)
        axes.imshow(matrix, cmap="cividis", vmin=0, vmax=max(0.5, float(matrix.max())))
        for (i, j), share in np.ndenumerate(matrix):
            # cividis is dark below and light above.
            colour = "black" if share > 0.3 else "white"
            axes.text(j, i, f"{share:.2%}", ha="center", va="center", color=colour)
        axes.set_xticks(range(3), TRITS)
        axes.set_yticks(range(3), TRITS)
        axes.set(xlabel=f"code in {after}", ylabel=f"code in {before}")
        axes.set_title(f"{row.changed:.2%} changed, net to 0: {row.net_to_zero:+.2%}", fontsize=10)
        axes.grid(visible=False)
    return {"codes_flow": figure}


def draw_planes(report: PlanesReport) -> dict[str, Figure]:
    """Draw correlation, alignment and sparsity of FDB's planes by kind of layer."""
    figure, panels = new_figure(
        f"The two planes of FDB, a1·b1 + a2·b2 ({report.label})", 2, width=6.0, height=4.6
    )
    places = np.arange(len(report.rows))
    kinds = [row.kind for row in report.rows]
    pairs = (
        (
            ("correlation of a1·b1 with a2·b2", [row.correlation for row in report.rows]),
            ("alignment: cosine of a2·b2 with w - a1·b1", [row.alignment for row in report.rows]),
        ),
        (
            ("zeros in plane b1", [row.zeros[0] for row in report.rows]),
            ("zeros in plane b2", [row.zeros[1] for row in report.rows]),
        ),
    )
    for panel, (axes, series) in enumerate(zip(panels, pairs, strict=True)):
        for index, (label, values) in enumerate(series):
            colour = COLOURS[2 * panel + index]
            bars = axes.bar(places + (index - 0.5) * 0.4, values, 0.4, color=colour, label=label)
            axes.bar_label(bars, fmt="%.2f", fontsize=7)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(places, kinds, rotation=30, ha="right", fontsize=8)
        axes.margins(y=0.15)
        axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    panels[0].set_ylabel("-1 to 1, no unit")
    panels[1].set_ylabel("share of weights")
    note(figure, "alignment 1: the second plane mends all that the first leaves")
    return {"planes": figure}
