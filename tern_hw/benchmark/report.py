"""A benchmark's figures as a table, and as a picture under the machine's roofs."""

from pathlib import Path
from typing import Any

__all__ = ["picture", "print_report"]


def print_report(report: dict[str, Any]) -> None:
    """Print the figures, one table for each shape."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(100, Console().width))
    console.print(
        f"{report['processor']}: {report['instructions']}, "
        f"{report['processors']} processors; times are medians of {report['rounds']} rounds"
    )
    for threads, roof in report["roofs"].items():
        peak = roof["gmacs"]
        console.print(
            f"{threads} thread(s), median of cases: memory reads {roof['read_gb_s']:.1f} GB/s"
            + (f", dot products peak at {peak:.0f} GMAC/s" if peak else "")
        )
    for case in report["cases"]:
        table = Table(title=f"{case['shape']}, {case['threads']} thread(s), {case['caches']}")
        for name in ("", "us", "± %", "GMAC/s", "of peak", "GB/s", "of roof", "x numpy fp32"):
            table.add_column(name, justify="left" if not name else "right")
        for row in case["rows"]:
            table.add_row(
                row["name"],
                f"{1e6 * row['seconds']:,.1f}",
                f"{100 * row['spread']:.1f}",
                f"{row['gmacs']:.1f}",
                _share(row["of_peak"]),
                f"{row['gb_s']:.1f}",
                _share(row["of_read"]),
                "–" if row["times_numpy"] is None else f"{row['times_numpy'][0]:.2f}",
            )
        console.print(table)
    for name, seconds in report["first_call"].items():
        console.print(
            f"a process's first product, {name}: {seconds['first_product']:.2f} s, after "
            f"{seconds['import']:.2f} s of imports"
        )
    for note in report["notes"]:
        console.print(note)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def picture(report: dict[str, Any], path: Path) -> None:
    """Draw the contenders of one thread under the roofs: products a second, and a byte."""
    import matplotlib as mpl
    import numpy as np

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    roof = report["roofs"]["1"]
    intensity = np.geomspace(0.1, 2000, 400)
    memory = intensity * roof["read_gb_s"]
    axes.plot(
        intensity,
        np.minimum(memory, roof["gmacs"]) if roof["gmacs"] else memory,
        color="black",
        lw=1,
        label="roof: memory reads, dot products",
    )
    markers = {"hot": "o", "cold": "s"}
    colours = {"int8": "tab:blue", "fp16": "tab:green", "fp32": "tab:cyan"}
    for case in report["cases"]:
        if case["threads"] != 1:
            continue
        for row in case["rows"]:
            kind = row["name"].split()[0]
            axes.scatter(
                row["products"] / row["nbytes"],
                row["gmacs"],
                marker=markers[case["caches"]],
                color=colours.get(kind, "tab:gray" if kind != "reference" else "tab:orange"),
                s=22,
            )
    for label, colour in (
        ("kernels, int8", "tab:blue"),
        ("kernels, exact fp16", "tab:green"),
        ("kernels, float32 through int8", "tab:cyan"),
        ("reference", "tab:orange"),
        ("numpy, PyTorch", "tab:gray"),
    ):
        axes.scatter([], [], color=colour, label=label)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="multiply-accumulates a byte of the matrix",
        ylabel="GMAC/s",
        title=f"One thread of {report['processor']} (squares: from memory)",
    )
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.1), ncols=3, frameon=False)
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=130)
    plt.close(figure)
