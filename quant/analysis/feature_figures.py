"""Pictures of features: outlier channels, the losses' gradients on them, and word groups."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from quant.analysis.clustering import Clustering, principal_plane
from quant.analysis.figures import COLOURS, MARKERS, new_figure
from quant.analysis.outliers import BlockOutliers, StudentOutliers

__all__ = ["draw_clustering", "draw_outliers"]


def draw_outliers(
    blocks: Sequence[BlockOutliers], students: Sequence[StudentOutliers], share: float, origin: str
) -> dict[str, Figure]:
    """Draw the teacher's outliers by block, and the share of each loss's gradient on them."""
    figures = {"outliers_channels": _channels(blocks, share, origin)}
    if students:
        figures["outliers_gradients"] = _gradients(blocks, students, share, origin)
    return figures


def _channels(blocks: Sequence[BlockOutliers], share: float, origin: str) -> Figure:
    figure, (left, right) = new_figure(
        f"Outliers in the residual stream after each block\n{origin}", 2
    )
    numbers = [row.block for row in blocks]
    for index, (name, label) in enumerate(
        (("peak", "all tokens"), ("peak_later", "without each window's first token"))
    ):
        values = [getattr(row, name) for row in blocks]
        left.plot(numbers, values, color=COLOURS[index], marker=MARKERS[index], ms=4, label=label)
    left.set(ylabel="largest |x| / median channel's root mean square", yscale="log")
    right.plot(
        numbers,
        [row.energy for row in blocks],
        color=COLOURS[2],
        marker=MARKERS[2],
        ms=4,
        label=f"on the top {share:.0%} of channels",
    )
    right.axhline(share, color="black", linestyle="--", label="if all channels were alike")
    right.set(ylabel="share of the features' squared norm", ylim=(0, 1))
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    _block_axes(left, right)
    return figure


def _gradients(
    blocks: Sequence[BlockOutliers], students: Sequence[StudentOutliers], share: float, origin: str
) -> Figure:
    figure, panels = new_figure(
        f"Squared gradient on the top {share:.0%} of channels, MSE against OFF (1 - cos)\n{origin}",
        2,
        width=5.6,
        height=4.4,
    )
    numbers = [row.block for row in blocks]
    names = (("share", "mean over tokens"), ("pooled", "all tokens together"))
    for axes, (name, title) in zip(panels, names, strict=True):
        for index, student in enumerate(students):
            for loss, style, colour in (("mse", "-", 4), ("off", "--", 0)):
                axes.plot(
                    numbers,
                    [getattr(pull, name) for pull in getattr(student, loss)],
                    color=COLOURS[colour],
                    linestyle=style,
                    marker=MARKERS[index % 8],
                    ms=4,
                    label=f"{loss.upper()}, {student.label}",
                )
        axes.axhline(share, color="black", linestyle=":", label="if all channels were alike")
        axes.set(title=title, ylabel="share of the gradient's squared norm", ylim=(0, 1.02))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _block_axes(*panels)
    return figure


def draw_clustering(
    models: Sequence[Clustering],
    blocks: Sequence[int],
    features: Sequence[Sequence[Tensor]],
    labels: Sequence[str],
    k: int,
) -> dict[str, Figure]:
    """Draw the measures by block (the first model is the teacher), and the words in a plane."""
    best = max(range(len(blocks)), key=lambda index: models[0].silhouette[index])
    return {
        "clustering_measures": _measures(models, blocks, len(labels), k),
        "clustering_words": _words(models, blocks[best], [each[best] for each in features], labels),
    }


def _measures(models: Sequence[Clustering], blocks: Sequence[int], words: int, k: int) -> Figure:
    figure, panels = new_figure(f"Semantic clustering of {words} words, by block", 3)
    titles = (
        ("silhouette", "silhouette over word groups (cosine)"),
        ("overlap", f"{k} nearest words shared with the teacher"),
        ("cka", "linear CKA with the teacher"),
    )
    for axes, (name, title) in zip(panels, titles, strict=True):
        for index, model in enumerate(models):
            if index or name == "silhouette":
                style: dict[str, Any] = {"color": COLOURS[index % 8], "marker": MARKERS[index % 8]}
                axes.plot(blocks, getattr(model, name), ms=4, label=model.label, **style)
        axes.set(ylabel=title)
    panels[0].axhline(0, color="black", linestyle=":", label="no clusters")
    panels[1].axhline(k / (words - 1), color="black", linestyle=":", label="by chance")
    for index, model in enumerate(models[1:], 1):
        label = f"{model.label}, words paired at random"
        colour = COLOURS[index % 8]
        panels[2].plot(blocks, model.cka_by_chance, color=colour, linestyle=":", label=label)
    panels[1].set_ylim(0, 1.02)
    panels[2].set_ylim(0, 1.02)
    _block_axes(*panels)
    return figure


def _words(
    models: Sequence[Clustering], block: int, features: Sequence[Tensor], labels: Sequence[str]
) -> Figure:
    figure, panels = new_figure(
        f"Words after block {block}, in each model's two directions of largest variance",
        len(models),
    )
    groups = list(dict.fromkeys(labels))
    for axes, model, feature in zip(panels, models, features, strict=True):
        plane = principal_plane(feature).numpy()
        for index, group in enumerate(groups):
            member = [label == group for label in labels]
            style: dict[str, Any] = {"color": COLOURS[index % 8], "marker": MARKERS[index % 8]}
            x, y = plane[member].T
            axes.scatter(x, y, s=28, label=group, edgecolors="black", linewidths=0.3, **style)
        axes.set(title=model.label, xlabel="first direction", ylabel="second direction")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(groups), fontsize=8)
    return figure


def _block_axes(*panels: Axes) -> None:
    for axes in panels:
        axes.set_xlabel("block")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=7)
