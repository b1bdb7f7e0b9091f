"""The look of the analysis' pictures, and how they reach the disk."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tern_hw.files import write_atomic

__all__ = ["COLOURS", "MARKERS", "new_figure", "note", "save_figures"]

#: Okabe and Ito's colours, told apart with any colour vision; black is left to references.
COLOURS: Final = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#56B4E9",
    "#F0E442",
    "#666666",
)
#: A second sign beside the colour.
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
#: Dots per inch.
RESOLUTION: Final = 130


def new_figure(
    title: str, panels: int = 1, *, width: float = 5.0, height: float = 4.0
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side; sizes are inches a panel.

    The figure belongs to no window system: it draws with Agg wherever it is saved.
    """
    figure = Figure(figsize=(width * panels, height), layout="constrained")
    figure.suptitle(title, fontsize=11, wrap=True)
    axes = [figure.add_subplot(1, panels, index + 1) for index in range(panels)]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.set_axisbelow(True)
        each.grid(axis="y", linewidth=0.4, alpha=0.6)
    return figure, axes


def note(figure: Figure, text: str) -> None:
    """Write below the panels what the symbols in them mean."""
    figure.supxlabel(text, fontsize=8, color="#444444")


def save_figures(folder: Path, figures: Mapping[str, Figure]) -> list[str]:
    """Write figures as `<name>.png`, each whole or not at all; returns their paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    for name, figure in figures.items():
        buffer = io.BytesIO()
        options: dict[str, Any] = {"format": "png", "dpi": RESOLUTION}
        figure.savefig(buffer, **options)
        path = folder / f"{name}.png"
        write_atomic(path, buffer.getvalue())
        paths.append(str(path))
    return paths
