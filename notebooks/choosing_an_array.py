# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Choosing an array
#
# **Question.** How many lanes, how many rows, which packing and which clock should an array have,
# for a given model and memory? A point is worth a look if no other is at least as good in energy,
# speed and area, and better in one of them: it lies on the Pareto front.

# %%
import itertools
from functools import lru_cache

import numpy as np
import style

from tern_hw.config import ArrayConfig, Packing
from tern_hw.costs import System, TableArea, decode, estimate, load_inputs, open_model

LANES = (16, 32, 64, 128, 256, 512)
ROWS = (1, 2, 4, 8, 16)
CLOCKS_MHZ = (250, 500, 1000)
GROUP_SIZE = 128
#: Of the unit beside the array: enough for attention and head on the fastest memory.
FLOAT_MACS = 512
CONTEXT = 1024
MEMORY = "lpddr5"
model = open_model("bitnet-2b4t")
phase = decode(model, CONTEXT)

arrays = [
    (ArrayConfig(lanes=lanes, rows=rows, packing=packing, group_size=GROUP_SIZE), clock)
    for lanes, rows, packing, clock in itertools.product(LANES, ROWS, Packing, CLOCKS_MHZ)
]


@lru_cache
def sweep(memory, end="value"):
    """Return energy (mJ) and time (ms) of a token and the array's area (mm2), [points, 3]."""
    values = load_inputs("7nm", memory).values(end)
    area = TableArea(values)
    figures = []
    for array, clock in arrays:
        system = System(engine=array, clock_mhz=clock, float_macs=FLOAT_MACS)
        found = estimate(system, phase, values)
        figures.append(
            (found.joules_per_token * 1e3, 1e3 / found.tokens_per_second, area.mm2(array))
        )
    return np.array(figures)


def front(points):
    """Return which points no other beats, bool [points]."""
    no_worse = (points[:, None] <= points[None]).all(-1)
    better = (points[:, None] < points[None]).any(-1)
    return ~(no_worse & better).any(0)


points = sweep(MEMORY)
on_front = front(points)
print(f"{model.name}, one token at a context of {CONTEXT}, {MEMORY}, 7 nm, G = {GROUP_SIZE}")
print(f"{len(points)} arrays, {on_front.sum()} of them on the front of energy, time and area")

# %% [markdown]
# ## Area against speed, and against energy

# %%
energy, time, area = points.T
speed = 1e3 / time
drawn, axes = style.figure(2, width=11.5, height=4.6)
for (colour, marker), packing in zip(style.LOOKS, Packing, strict=False):
    chosen = np.array([array.packing is packing for array, _ in arrays])
    for at, figure in enumerate((speed, energy)):
        axes[at].scatter(
            area[chosen], figure[chosen], s=16, color=colour, marker=marker, alpha=0.3, lw=0
        )
        best = chosen & on_front
        axes[at].scatter(
            area[best],
            figure[best],
            s=48,
            color=colour,
            edgecolor="black",
            marker=marker,
            lw=0.7,
            label=f"{packing}, on the front",
            zorder=3,
        )
for each, name in zip(axes, ("tokens a second", "energy of a token, mJ"), strict=True):
    each.set_xscale("log")
    style.tidy(each, x="area of the array, mm2 (7 nm, logarithmic)", y=name)
axes[0].legend(loc="lower right", title="faint: beaten by another", fontsize=8)
axes[0].set_title("Speed: rises until the memory is busy all the time", fontsize=10, loc="left")
axes[1].set_title("Energy: mostly the memory's; two clouds, by packing", fontsize=10, loc="left")
style.show(drawn, "array_front")

# %% [markdown]
# ## The front, from small to fast
#
# Some points are on the front for a hair of speed, at more energy and area. One is listed here only
# if it is faster, or takes less energy, than all smaller ones by at least one part in a hundred.

# %%
rows, fastest, least = [], 0.0, float("inf")
for at in sorted(np.flatnonzero(on_front), key=lambda at: area[at]):
    if speed[at] > fastest * 1.01 or energy[at] < least / 1.01:
        array, clock = arrays[at]
        rows.append(
            (array.lanes, array.rows, str(array.packing), clock, area[at], speed[at], energy[at])
        )
        fastest, least = max(fastest, speed[at]), min(least, energy[at])
style.table(("lanes", "rows", "packing", "MHz", "mm2", "tokens/s", "mJ a token"), rows)

# %% [markdown]
# ## Where more lanes stop to help
#
# The time of a token is the larger of what the array and what the memory need. Peak throughput
# beyond the memory's rate is area without use, and a faster memory moves that point.

# %%
drawn, axes = style.figure(width=9.5, height=4.4)
peak = np.array([array.lanes * array.rows * clock / 1e3 for array, clock in arrays])
packed = np.array([array.packing is Packing.BASE3 for array, _ in arrays])
enough = []
for (colour, marker), memory in zip(style.LOOKS, ("lpddr5", "gddr6", "hbm2"), strict=False):
    rate = 1e3 / sweep(memory)[:, 1]
    levels = np.unique(peak[packed])
    best = np.array([rate[packed & (peak == level)].max() for level in levels])
    axes.plot(levels, best, color=colour, marker=marker, label=memory.upper())
    enough.append((memory, best.max(), levels[np.argmax(best > 0.95 * best.max())]))
axes.set_xscale("log")
axes.legend(title="memory")
style.tidy(
    axes,
    x="peak of the array: lanes x rows x clock, GMAC/s (logarithmic)",
    y="tokens a second",
    title=f"{model.name}: the best array at each peak, base-3",
)
style.show(drawn, "array_saturation")
style.table(("memory", "most tokens/s", "peak GMAC/s at which 95 % of it is reached"), enough)

# %% [markdown]
# **What it means.** Choose the memory first: it sets the speed that can be had. Then take the
# smallest array on the front that reaches it, and `base3` where the memory is the bound: its
# decoder costs area and arithmetic, and saves more than that in bits.
#
# ## How far to trust it
#
# The front is of estimates. With all coefficients at their low or all at their high ends, this
# much of it stays:

# %%
for end in ("low", "high"):
    other = front(sweep(MEMORY, end))
    print(
        f"all coefficients {end}: {other.sum()} on the front, "
        f"{(other & on_front).sum()} of them among the {on_front.sum()} above"
    )

# %% [markdown]
# * A **clock** costs nothing here but leakage: whether 512 lanes reach 1,000 MHz is a question to
#   synthesis (`python -m tern_hw.synth`), not to this model, so fast points are promises.
# * **Area** is counted from tables, without wires and control.
# * The **companion unit** for attention and head is the same beside all arrays, and not in the area
#   above; a model with a large head hides part of what a better array would give.
