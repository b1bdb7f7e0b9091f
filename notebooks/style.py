"""What the notebooks share: colours that any eye tells apart, axes, how a figure is shown."""

import io
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["DATA", "FORMATS", "LOOKS", "RECORDED", "REPORTED", "figure", "show", "table", "tidy"]

HERE: Final = Path(__file__).resolve().parent
#: Tables that were measured once; data/README.md says how.
DATA: Final = HERE / "data"
#: Recorded runs of the quantisation methods.
RECORDED: Final = HERE.parent / "quant" / "recorded"

#: Okabe and Ito's palette (2008), in the order of use; each with a marker of its own.
LOOKS: Final = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#666666", "X"),
)
#: Colour and marker of a number format, the same in every figure.
FORMATS: Final = {
    "ternary": LOOKS[0],
    "fp16": LOOKS[1],
    "int8": LOOKS[2],
    "int4": LOOKS[4],
}
#: Colour of what others report.
REPORTED: Final = "#000000"
#: Dots per inch of a figure.
RESOLUTION: Final = 120


def figure(columns: int = 1, *, width: float = 10.0, height: float = 4.2) -> tuple[Figure, Any]:
    """Return a figure and its axes (one, or an array of them side by side); sizes in inches."""
    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots(1, columns)


def tidy(axes: Axes, *, x: str, y: str = "", title: str = "", grid: str = "both") -> None:
    """Name the axes, with units, and leave out what carries no information."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, linewidth=0.4, alpha=0.6)


def show(made: Figure, name: str) -> None:
    """Show a figure in a notebook; write `<name>.png` where TERN_FIGURES names a folder."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=RESOLUTION)
    if folder := os.environ.get("TERN_FIGURES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.png").write_bytes(buffer.getvalue())
    if "ipykernel" in sys.modules:
        from IPython.display import Image, display

        display(Image(data=buffer.getvalue()))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows in columns: numbers to four digits and to the right, text to the left."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[at]) for row in [list(header), *cells]) for at in range(len(header))]
    numeric = [all(_is_number(row[at]) for row in cells) for at in range(len(header))]
    for line in [list(header), ["-" * width for width in widths], *cells]:
        parts = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        print("  ".join(parts).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").rstrip("x%"))
    except ValueError:
        return text in ("", "-")
    return True
