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
# # A whole language model on a board
#
# **Question.** How many tokens a second, and how many joules a token, does a ternary array give
# for a whole model beside one memory: with its head, its attention and its cache? And how does that
# stand beside what others have published?

# %%
import math
import tomllib

import style

from tern_hw.config import ArrayConfig
from tern_hw.costs import (
    Opponent,
    System,
    bracket,
    catalogue,
    decode,
    estimate,
    load_inputs,
    open_model,
    tornado,
)

CONTEXT = 1024
MEMORIES = ("lpddr5", "gddr6", "hbm2", "ddr4")
#: Wide enough that the memory, and not the array, sets the time on all four.
ARRAY = ArrayConfig(lanes=256, rows=16, packing="base3")
CLOCK_MHZ = 500
FLOAT_MACS = 1024
model = open_model("bitnet-2b4t")


def run(model, memory, form="ternary", context=CONTEXT, end="value"):
    """Return the estimate of one decoded token."""
    engine = ARRAY if form == "ternary" else Opponent.beside(form, ARRAY)
    system = System(engine=engine, clock_mhz=CLOCK_MHZ, float_macs=FLOAT_MACS)
    values = load_inputs("7nm", memory).values(end)
    return estimate(system, decode(model, context), values)


print(
    f"model   {model.name}, {model.parameters / 1e9:.2f} G parameters, context {CONTEXT}, batch 1"
)
print(f"array   {ARRAY.name} at {CLOCK_MHZ} MHz; {FLOAT_MACS} fp16 multiply-accumulates beside it")
style.table(
    ("memory", "GB/s", "pJ/bit", "its energy is of"),
    (
        (name, found["memory.bandwidth"], found["memory.energy"], load_inputs("7nm", name).boundary)
        for name in MEMORIES
        for found in (load_inputs("7nm", name).values(),)
    ),
)

# %% [markdown]
# ## Roofline
#
# A token's multiply-accumulates over its bytes is what a byte is good for; times the bandwidth it
# is the most that the memory allows. The flat roof is the array's own.

# %%
forms = {"ternary": "ternary", "int4": "INT4", "int8": "INT8", "fp16": "FP16"}
drawn, axes = style.figure(width=9.5, height=4.6)
peak = ARRAY.lanes * ARRAY.rows * CLOCK_MHZ / 1e3
span = (0.35, 150)
rates = {name: load_inputs("7nm", name).values()["memory.bandwidth"] for name in MEMORIES}
rows = []
for memory, rate in rates.items():
    ridge = min(span[1], peak / rate)
    axes.plot(
        (span[0], ridge, span[1]), (span[0] * rate, ridge * rate, peak), color="#888888", lw=1
    )
    same = ", ".join(name.upper() for name in MEMORIES if rates[name] == rate)
    axes.annotate(
        f"{same}: {rate:g} GB/s" if memory == MEMORIES[0] or "," not in same else "",
        (3, 3 * rate),
        xytext=(8, -4),
        textcoords="offset points",
        fontsize=8,
        va="top",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )
    for form, label in forms.items():
        found = run(model, memory, form)
        macs = sum(each.macs for each in found.kinds)
        intensity = macs / found.bytes_per_token
        colour, marker = style.FORMATS[form]
        axes.scatter(
            intensity,
            macs * found.tokens_per_second / 1e9,
            color=colour,
            marker=marker,
            s=55,
            zorder=3,
            label=label if memory == MEMORIES[0] else None,
        )
        rows.append(
            (
                memory,
                label,
                found.bytes_per_token / 1e6,
                intensity,
                found.tokens_per_second,
                found.joules_per_token * 1e3,
                found.bound,
            )
        )
axes.annotate(
    f"array, {peak:,.0f} GMAC/s", (span[1], peak * 1.06), ha="right", va="bottom", fontsize=8
)
axes.set_ylim(6, peak * 1.7)
axes.set_xscale("log")
axes.set_yscale("log")
axes.set_xlim(*span)
axes.legend(title="weights", loc="lower right")
style.tidy(
    axes,
    x="multiply-accumulates a byte from memory (logarithmic)",
    y="GMAC/s (logarithmic)",
    title=f"Decoding {model.name}, batch 1: every format lies on the memory's roof",
)
style.show(drawn, "board_roofline")
style.table(
    ("memory", "weights", "MB a token", "MAC/byte", "tokens/s", "mJ a token", "bound by"), rows
)

# %% [markdown]
# **What it means.** At batch 1 all formats are bound by the memory: fewer bytes a token are more
# tokens a second, and nothing else is. A point below its roof is work that waits for no memory.
#
# ## Where a token's energy goes
#
# The linear layers shrink; the head in fp16 and, as the context grows, the cache do not.

# %%
KINDS = {
    "linear layers": ("attention linears", "mlp linears"),
    "lm_head (fp16)": ("lm_head",),
    "attention and KV cache": ("attention",),
    "norms and the rest": ("norms and glue", "embedding", "projections"),
}
cases = [
    (f"{forms[form]}, context {context:,}", run(model, "lpddr5", form, context))
    for form in ("ternary", "int4", "fp16")
    for context in (128, model.max_context)
]
drawn, axes = style.figure(width=9.5, height=3.8)
left = [0.0] * len(cases)
for (label, kinds), (colour, _), hatch in zip(
    KINDS.items(), style.LOOKS, ("", "//", "..", "xx"), strict=False
):
    widths = [
        sum(each.energy.total for each in found.kinds if each.kind in kinds) / 1e9
        for _, found in cases
    ]
    axes.barh(
        [name for name, _ in cases],
        widths,
        left=left,
        color=colour,
        hatch=hatch,
        edgecolor="white",
        label=label,
    )
    left = [at + width for at, width in zip(left, widths, strict=True)]
axes.bar_label(axes.containers[-1], labels=[f"{whole:.0f} mJ" for whole in left], padding=4)
axes.invert_yaxis()
axes.set_xlim(0, max(left) * 1.45)
axes.legend(loc="center right")
style.tidy(axes, x="energy of a token, mJ", title=f"{model.name}, LPDDR5, 7 nm", grid="x")
style.show(drawn, "board_energy")
for context in (128, model.max_context):
    ours, theirs = (run(model, "lpddr5", form, context) for form in ("ternary", "fp16"))
    print(
        f"context {context:5,}: FP16 takes {theirs.joules_per_token / ours.joules_per_token:.2f} "
        "times the energy of a token"
    )

# %% [markdown]
# ## Beside what others published
#
# Each row says what *they* report, under which conditions, what *our model* gives for the nearest
# model of the catalogue on a memory of that kind, and why the two cannot be divided. Energies are
# per parameter, since the models differ in size. The bytes a second are theirs: tokens a second
# times parameters times bits a weight.

# %%
works = tomllib.loads((style.DATA / "published.toml").read_text(encoding="utf-8"))["work"]


def joules_per_token(work):
    """Return what a work's own figures say, or None."""
    if "watts" in work:
        return work["watts"] / work["tokens_per_second"]
    return 1 / work["tokens_per_joule"] if "tokens_per_joule" in work else None


def nearest(parameters):
    """Return the catalogue's model nearest in size, by ratio."""
    return min(catalogue().values(), key=lambda each: abs(math.log(each.parameters / parameters)))


rows = []
for work in works:
    theirs = joules_per_token(work)
    count, speed, bits = (
        work.get(key) for key in ("parameters", "tokens_per_second", "bits_per_weight")
    )
    ours = same = None
    if "memory" in work:
        same = nearest(count)
        ours = run(same, work["memory"])
    rows.append(
        (
            work["name"],
            f"{speed:,}" if speed else "-",
            f"{theirs * 1e3:.3g}" if theirs else "-",
            f"{theirs / count * 1e12:.3g}" if theirs else "-",
            f"{speed * count * bits / 8e9:.3g}" if speed and bits else "-",
            f"{same.name}, {work['memory']}" if ours else "-",
            f"{ours.joules_per_token * 1e3:.3g}" if ours else "-",
            f"{ours.joules_per_token / same.parameters * 1e12:.3g}" if ours else "-",
        )
    )
print("reported by them, or from their own figures              | modelled by us")
style.table(
    ("work", "tokens/s", "mJ/token", "pJ/parameter", "GB/s", "for", "mJ/token", "pJ/parameter"),
    rows,
)
for work in works:
    print(f"\n{work['name']} ({work['model']}; {work['platform']})")
    print(f"  source          {work['source']}")
    print(f"  conditions      {work['conditions']}")
    print(f"  not comparable  {work['not_comparable']}")

# %%
drawn, (left, right) = style.figure(2, width=11.5, height=4.8)
names = ("smollm2-135m", "opt-350m", "opt-1.3b", "bitnet-2b4t", "opt-6.7b")
models = sorted((open_model(name) for name in names), key=lambda each: each.parameters)
sizes = [each.parameters for each in models]


def joules_of(model):
    """Return the energy of a token as a function of the coefficients."""
    system = System(engine=ARRAY, clock_mhz=CLOCK_MHZ, float_macs=FLOAT_MACS)
    return lambda values: estimate(system, decode(model, CONTEXT), values).joules_per_token


for memory, (colour, marker) in zip(("sram", "hbm2", "lpddr5", "ddr4"), style.LOOKS, strict=False):
    known = load_inputs("7nm", memory)
    # Whether a coefficient raises or lowers the energy is the same for all sizes: found once.
    swings = tornado(known, joules_of(models[0]))
    energy = [bracket(known, joules_of(each), swings) for each in models]
    left.plot(
        sizes, [each.mid for each in energy], color=colour, marker=marker, label=memory.upper()
    )
    left.fill_between(
        sizes,
        [each.low for each in energy],
        [each.high for each in energy],
        color=colour,
        alpha=0.15,
    )
    speed = [run(each, memory).tokens_per_second for each in models]
    style_of = {"linestyle": "--" if memory == "ddr4" else "-", "label": memory.upper()}
    right.plot(sizes, speed, color=colour, marker=marker, **style_of)
PLACES = {"TeLLMe v2": (6, -11), "T-MAC": (6, 6), "VitaLLM": (6, -11)}
for work in works:
    for axes, value in ((left, joules_per_token(work)), (right, work.get("tokens_per_second"))):
        if value is None:
            continue
        axes.scatter(work["parameters"], value, marker="*", s=90, color=style.REPORTED, zorder=4)
        axes.annotate(
            work["name"],
            (work["parameters"], value),
            xytext=PLACES.get(work["name"], (6, 4)),
            textcoords="offset points",
            fontsize=8,
        )
for axes, name in ((left, "energy of a token, J"), (right, "tokens a second")):
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1e8, 3e8, 1e9, 3e9, 1e10], ["0.1 G", "0.3 G", "1 G", "3 G", "10 G"])
    axes.set_xticks([], minor=True)
    axes.set_xlim(9e7, 1.3e10)
    style.tidy(axes, x="parameters of the model (logarithmic)", y=f"{name} (logarithmic)")
left.set_title("Energy: lines modelled by us, stars reported by others", fontsize=10, loc="left")
right.set_title(
    "Speed: the same colours; LPDDR5 and DDR4 lie on each other", fontsize=10, loc="left"
)
left.legend(title="our array with", loc="lower right", fontsize=8)
style.show(drawn, "board_published")

# %% [markdown]
# **What it means.** The stars are whole devices: an FPGA draws power when it does nothing, its
# wires are programmable, and a board has a processor beside it. Our lines are arithmetic, on-chip
# memories, leakage at 7 nm and the memory's bits, without wires, clock tree and host; that they lie
# below is what such a model must give, and no claim of a better design. What can be set side by
# side are orders of magnitude and directions: energy a parameter falls as weights come closer to
# the array, and the bytes a second that a row implies say what memory it takes: TerEffic's design
# with HBM needs more than the one stack modelled here, TeLLMe's a fraction of a DDR4 channel.
#
# ## How far to trust it
#
# * Bands are all coefficients at their low or at their high ends together: no confidence interval.
#   The wide one of SRAM is the leakage of its banks.
# * A row's figures are those of the cited text; we ran none of these designs.
# * Our system is an array of one shape with memory-bound decoding; a batch above 1, or a prompt,
#   would look different.
# * "SRAM" holds all weights, the tables and the cache on the chip: the area that this takes is
#   printed below. It is never late: the array alone sets that line's speed.

# %%
for each in models:
    found = run(each, "sram")
    print(
        f"{each.name:13} {found.banks_mm2:7,.0f} mm2 of banks, {found.tokens_per_second:6,.0f} /s"
    )
