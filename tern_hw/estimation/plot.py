"""A picture of an estimate: the stack of a token's energy, and what moves it."""

import io
import textwrap
from typing import Any, Final

from tern_hw.costs import STACK
from tern_hw.errors import TernError
from tern_hw.files import write_atomic

__all__ = ["save_plot"]

#: Okabe and Ito's colours, told apart with any colour vision, a hatch beside each, and its name.
LOOKS: Final = {
    "compute": ("#0072B2", "", "linear layers: arithmetic"),
    "weights": ("#E69F00", "//", "linear layers: weights"),
    "activations": ("#009E73", "..", "linear layers: activations"),
    "kv": ("#CC79A7", "xx", "KV cache"),
    "other": ("#56B4E9", "\\\\", "head, attention, glue"),
    "static": ("#666666", "++", "leakage"),
}
#: Bars of what moves the answer.
MOST_SWINGS: Final = 8
#: Dots per inch.
RESOLUTION: Final = 130


def save_plot(facts: dict[str, Any], path: str) -> None:
    """Write the picture as PNG, whole or not at all.

    Raises
    ------
    TernError
        If the path does not end in .png or cannot be written, or matplotlib is not installed.
    """
    if not path.endswith(".png"):
        raise TernError(f"--plot must be a .png file, not {path!r}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise TernError("matplotlib must be installed for --plot, not missing") from None
    figure = Figure(figsize=(12.5, 4.8), layout="constrained")
    figure.suptitle(_title(facts), fontsize=10)
    stack, swings = figure.subplots(1, 2)
    _draw_stack(stack, facts)
    _draw_swings(swings, facts)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=RESOLUTION)
    write_atomic(path, buffer.getvalue())


def _title(facts: dict[str, Any]) -> str:
    found = facts["decode"]
    return (
        f"{facts['model']['name']}, one token at a context of {found['context']}: "
        f"{facts['array']['name']}, {facts['technology']}, {facts['memory']['name']}, "
        f"{facts['clock_mhz']:g} MHz"
    )


def _draw_stack(axes: Any, facts: dict[str, Any]) -> None:
    """Draw a bar for each format, in parts; the ternary one with its extremes."""
    rows = [("ternary", facts["decode"]["stack_joules_per_token"])]
    rows += [
        (each["title"], each["stack_joules_per_token"])
        for each in facts["opponents"]["decode"]
        if "missing" not in each
    ]
    names = [textwrap.fill(name, 16) for name, _ in rows]
    left = [0.0] * len(rows)
    for part in STACK:
        colour, hatch, label = LOOKS[part]
        widths = [stack[part] * 1e3 for _, stack in rows]
        axes.barh(
            names, widths, left=left, color=colour, hatch=hatch, label=label, edgecolor="white"
        )
        left = [at + width for at, width in zip(left, widths, strict=True)]
    energy = {end: joules * 1e3 for end, joules in facts["decode"]["joules_per_token"].items()}
    error = [[energy["mid"] - energy["low"]], [energy["high"] - energy["mid"]]]
    axes.errorbar([energy["mid"]], [0], xerr=error, color="black", capsize=3, linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("energy of a token, mJ (line: every input at its best or worst)")
    axes.legend(fontsize=8, loc="lower right")
    _tidy(axes)


def _draw_swings(axes: Any, facts: dict[str, Any]) -> None:
    """Draw how far each input moves the energy, the one that moves it most on top."""
    middle = facts["decode"]["joules_per_token"]["mid"] * 1e3
    rows = facts["tornado"][:MOST_SWINGS]
    names = [f"{row['input']}\n{row['low']:g} to {row['high']:g} {row['unit']}" for row in rows]
    for end, colour, hatch in (("at_low", "#56B4E9", ""), ("at_high", "#D55E00", "//")):
        widths = [row["joules_per_token"][end] * 1e3 - middle for row in rows]
        label = f"input {end.replace('_', ' its ')} end"
        axes.barh(names, widths, left=middle, color=colour, hatch=hatch, label=label)
    axes.axvline(middle, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel("energy of a token, mJ")
    axes.legend(fontsize=8, loc="lower right")
    _tidy(axes)


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)
