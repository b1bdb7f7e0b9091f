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
# # Accuracy against energy
#
# **Question.** Three choices trade accuracy for energy: how the weights are made ternary, how many
# of them share a scale (and how trits are packed), and how wide the activations are. What does each
# cost, on a real model?
#
# Accuracies come from recorded runs on SmolLM2-135M: `quant/recorded/compare-cpu` for whole models,
# `data/layers.json` for single layers (`data/measure.py` made it). Energies are of `tern_hw.costs`,
# for the same model.

# %%
import json

import style

from tern_hw.config import ArrayConfig
from tern_hw.costs import (
    System,
    TableArea,
    count_matmul,
    decode,
    estimate,
    load_inputs,
    open_model,
)

CONTEXT = 1024
CLOCK_MHZ = 500
MEMORY = "lpddr5"
model = open_model("smollm2-135m")
inputs = load_inputs("7nm", MEMORY)
recorded = json.loads((style.RECORDED / "compare-cpu" / "results.json").read_text())
measured = json.loads((style.DATA / "layers.json").read_text())
print("model      ", measured["model"])
print("whole model", f"{len(recorded)} runs, texts Brown and Moby-Dick, window 512")
print("layers     ", ", ".join(measured["layers"]))


def linears_uj(array, zeros=None):
    """Return the energy in uJ of a token's ternary layers: memory's bits, and on the chip."""
    known = inputs if zeros is None else inputs.replaced("data.zero_fraction", zeros, "measured")
    system = System(engine=array, clock_mhz=CLOCK_MHZ)
    stack = estimate(system, decode(model, CONTEXT), known.values()).stack
    return stack["weights"] / 1e6, (stack["compute"] + stack["activations"]) / 1e6


# %% [markdown]
# ## The method: accuracy that costs no energy
#
# All these methods store a trit a weight and, for every 128, a scale and perhaps a shift. The array
# streams both in any case: for it they are one format, of one energy. Divergence is that of the
# next token's distribution from the full-precision model's.

# %%
CHOSEN = {
    "absmean": "AbsMean, no training",
    "twn": "TWN, no training",
    "als": "least squares of weights, no training",
    "gptq ternary": "GPTQ, calibrated",
    "pt2_llm": "PT2-LLM, calibrated",
    "aware": "aware, calibrated",
    "dlt + off": "DLT, trained briefly",
    "dlt from aware + off": "DLT from aware, trained briefly",
    "fdb + dad (2 bits)": "two binary planes (2 bits), trained",
}
runs = {}
for each in recorded:
    if each["entry"] in CHOSEN:
        runs.setdefault(each["entry"], []).append(each)
rows = []
for entry, label in CHOSEN.items():
    divergence = [each["divergence"] for each in runs[entry]]
    mean = sum(divergence) / len(divergence)
    first = runs[entry][0]
    perplexity = sum(each["perplexity"]["brown"] for each in runs[entry]) / len(runs[entry])
    shown = perplexity if perplexity < 1e4 else "above 10,000"
    rows.append((label, len(divergence), first["bits_per_weight"], mean, shown))
style.table(("method", "seeds", "bits a weight", "divergence", "perplexity, Brown"), rows)
teacher = next(each for each in recorded if each["entry"] == "teacher")
print(f"full precision: perplexity {teacher['perplexity']['brown']:.1f}")

drawn, axes = style.figure(width=9.5, height=4.0)
planes = [entry.startswith("fdb") for entry in CHOSEN]
for two, (colour, marker), label in (
    (False, style.FORMATS["ternary"], "one trit a weight: runs on the array"),
    (True, style.LOOKS[3], "two planes: does not"),
):
    some = [row for row, is_planes in zip(rows, planes, strict=True) if is_planes is two]
    axes.scatter(
        [row[3] for row in some],
        [row[0] for row in some],
        color=colour,
        marker=marker,
        s=55,
        label=label,
        zorder=3,
    )
axes.invert_yaxis()
axes.set_xlim(left=0)
axes.legend(loc="lower right")
style.tidy(
    axes,
    x="divergence from full precision, nats a token (less is better)",
    title="SmolLM2-135M at G = 128: the same array, the same energy, another method",
)
style.show(drawn, "accuracy_methods")

# %% [markdown]
# **What it means.** Spend effort on the method first. It moves the divergence by a factor of
# several at no energy. A model of this size with little training stays far from full precision.
#
# ## Group size and packing
#
# A smaller group fits its weights better and sends more scales: 32 bits of scale and shift for
# every G weights. Each curve goes through the group sizes measured; its output error is on text
# that was not calibrated on, in the mean of the layers. (Beats of 32 lanes, which all these group
# sizes allow, are padded to whole bytes in base-3; wider ones lose less.)

# %%
METHODS = {"als": "least squares of weights", "aware": "aware (calibrated)"}
layers = measured["layers"].values()
SHAPE = next(iter(layers))["shape"]
sizes = [row["group_size"] for row in next(iter(layers))["groups"]]


def mean_of(size, method, what):
    """Return a figure's mean over the layers, with least and most."""
    found = [
        row[method][what]
        for layer in layers
        for row in layer["groups"]
        if row["group_size"] == size
    ]
    return sum(found) / len(found), min(found), max(found)


drawn, axes = style.figure(width=9.5, height=4.8)
rows = []
for packing, line in (("base3", "-"), ("2bit", "--")):
    for (method, label), (colour, marker) in zip(METHODS.items(), style.LOOKS, strict=False):
        energies, errors = [], []
        for size in sizes:
            # 32 lanes divide every group size here, 8 rows keep the peak of the default array.
            array = ArrayConfig(lanes=32, rows=8, packing=packing, group_size=size)
            zeros = mean_of(size, method, "zeros")[0]
            memory, chip = linears_uj(array, zeros)
            error, least, most = mean_of(size, method, "output_error")
            energies.append((memory + chip) / 1e3)
            errors.append(100 * error)
            spread = f"{100 * least:.1f} to {100 * most:.1f} %"
            bits = float(count_matmul(array, 1, *SHAPE).bits_per_weight)
            rows.append((packing, method, size, zeros, 100 * error, spread, bits, memory + chip))
        axes.plot(energies, errors, line, color=colour, marker=marker, label=f"{label}, {packing}")
        if method == "als":
            for size, at in zip(sizes, zip(energies, errors, strict=True), strict=True):
                axes.annotate(
                    f"{size}",
                    at,
                    xytext=(0, 7),
                    textcoords="offset points",
                    fontsize=8,
                    ha="center",
                )
axes.set_ylim(bottom=0)
axes.legend(fontsize=9)
style.tidy(
    axes,
    x="energy of a token's ternary layers, mJ (LPDDR5, 7 nm)",
    y="error of a layer's output, % of its energy",
    title="Group size G (numbers at the points) against energy, by packing",
)
style.show(drawn, "accuracy_groups")
style.table(
    (
        "packing",
        "method",
        "G",
        "zeros",
        "output error, %",
        "over layers",
        "bits a weight",
        "uJ a token",
    ),
    rows,
)

# %% [markdown]
# **What it means.** For one method, `base3` gives every accuracy for less energy than `2bit`, so
# packing is no trade where the weights come from a DRAM. The group size is one, with a knee: below
# it the energy of the scales grows faster than the error falls. And the gap between two methods is
# wider than that between the smallest and the largest group of either.
#
# ## Width of the activations
#
# `fp16` activations computed exactly are 41-bit integers in the array. `aligned(W)` rounds a
# group's to W bits at its largest exponent and is exact from there on. Its error is against the
# exact product; beside it stand what int8 with a scale a token does, and what the weights' own
# rounding to trits did to the same layers.

# %%
widths = [row["bits"] for row in next(iter(layers))["activations"]["aligned"]]


def activation_error(read):
    """Return a figure's mean over the layers, in percent."""
    found = [100 * read(layer["activations"]) for layer in layers]
    return sum(found) / len(found)


by_width = {
    bits: activation_error(lambda found, at=at: found["aligned"][at]["from_exact"])
    for at, bits in enumerate(widths)
}
int8_error = activation_error(lambda found: found["int8"])
weight_error = 100 * mean_of(measured["activation_group_size"], "aware", "output_error")[0]
values = inputs.values()
shapes = {"int8": ArrayConfig(packing="base3")}
shapes |= {
    f"aligned({bits})": ArrayConfig(packing="base3", activation="fp16", aligned=bits)
    for bits in widths
}
shapes["fp16, exact"] = ArrayConfig(packing="base3", activation="fp16")
costs = {name: (*linears_uj(array), TableArea(values).mm2(array)) for name, array in shapes.items()}

drawn, (left, right) = style.figure(2, width=11.5, height=4.6)
shown = {bits: error for bits, error in by_width.items() if error > 0}
colour, marker = style.FORMATS["ternary"]
left.plot(shown.keys(), shown.values(), color=colour, marker=marker, label="aligned(W)")
for value, (colour, _), line, label in (
    (weight_error, style.LOOKS[3], "-.", "rounding the weights to trits (aware)"),
    (int8_error, style.FORMATS["int8"], "--", "int8, a scale a token"),
):
    left.axhline(value, color=colour, linestyle=line, label=label)
left.set_yscale("log")
left.legend(fontsize=8)
style.tidy(
    left,
    x="W, bits of an aligned activation",
    y="error of the output, % of its energy (logarithmic)",
    title="What rounding the activations adds",
)
picked = ["int8", *(f"aligned({bits})" for bits in (8, 12, 16, 20, 24)), "fp16, exact"]
for at, (label, hatch) in enumerate((("energy on the chip", ""), ("area of the array", "//"))):
    figures = [costs[name][1 + at] / costs["fp16, exact"][1 + at] for name in picked]
    places = [place + 0.4 * at - 0.2 for place in range(len(picked))]
    right.barh(
        places,
        figures,
        height=0.38,
        color=style.LOOKS[at][0],
        hatch=hatch,
        edgecolor="white",
        label=label,
    )
right.set_yticks(range(len(picked)), picked)
right.invert_yaxis()
right.legend(fontsize=8)
style.tidy(right, x="share of what exact fp16 takes", title="What is left of exact fp16", grid="x")
style.show(drawn, "accuracy_activations")
style.table(
    ("activations", "output error, %", "uJ on the chip", "uJ with LPDDR5", "mm2"),
    (
        (
            name,
            {"int8": int8_error, "fp16, exact": 0.0}.get(name, by_width.get(array.aligned, 0.0)),
            costs[name][1],
            costs[name][0] + costs[name][1],
            costs[name][2],
        )
        for name, array in shapes.items()
    ),
)
print(f"weights rounded to trits: {weight_error:.3g} %")

# %% [markdown]
# **What it means.** Each bit of W at least halves the error's amplitude; some bits above those of
# int8 it is far below what the trits themselves cost, and the array is a fraction of the exact one.
# On the whole token the saving is small, as the weights' bits stay: the width of the activations is
# a question of area and of on-chip energy, not of the memory's.
#
# ## How far to trust it
#
# * **One small model**, a dequantised 4-bit one, and three layers of one kind with 576 inputs.
# * **A layer's error is not a model's perplexity.** The first figure is of whole models, the others
#   are of layers alone; errors of layers add up in ways that they do not show.
# * **Calibration and measurement** are of one chapter of one novel, on different parts of it.
# * Of **aligned(W)** the search for the groups' units and the alignment, once a token, are
#   counted too; a row's adders work many times as often.
# * Runs with other settings are in `quant/recorded`, with the commands that made them.
