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
# # Energy of one layer, and where 71.4x comes from
#
# **Question.** A ternary weight turns a multiplication into an addition, a subtraction or
# nothing. The literature says that this saves 71.4 times the energy of the arithmetic. How much of
# it is left in an array that can be built, and how much once the weights come from a memory?
#
# Everything below is counted by `tern_hw.costs`: how often each part of the array works for one
# layer, times an energy from a table whose every number has a source. Nothing is measured on
# silicon.

# %%
import style

from tern_hw.config import ArrayConfig
from tern_hw.costs import Opponent, count_matmul, count_opponent, load_inputs, open_model
from tern_hw.costs.actions import (
    group_end,
    lane_mask,
    memory_register,
    result,
    row_step,
    scale_beat,
    weight_beat,
)
from tern_hw.costs.energy import MEMORY_ACTIONS, action_energy_pj, energy_pj
from tern_hw.costs.loading import load_chunk

MEMORIES = ("sram", "hbm2", "lpddr5", "ddr4")
model = open_model("llama-2-7b")
layer = next(each for each in model.linears if each.name == "mlp.gate_proj")
array = ArrayConfig(packing="base3")
inputs = load_inputs("7nm", "lpddr5")
print(f"layer  {model.name} {layer.name}: {layer.n} outputs x {layer.k} inputs, one token")
print(f"array  {array.name}; beside it an FP16 array of as many lanes and rows")

# %% [markdown]
# ## The quoted figure
#
# It divides an fp16 multiplication and addition by one 8-bit addition. Its inputs, with their
# sources, and the figure itself at two nodes:

# %%
QUOTED = ("energy.fp16_mul", "energy.fp16_add", "energy.int_add_8")
rows, quoted = [], {}
for node in ("7nm", "45nm"):
    found = load_inputs(node, "lpddr5").coefficients
    for key in QUOTED:
        it = found[key]
        rows.append((node, key, it.value, f"{it.low:g} to {it.high:g}", it.unit, it.source))
    multiply, add, narrow = (found[key].value for key in QUOTED)
    quoted[node] = (multiply + add) / narrow
style.table(("node", "input", "value", "bounds", "unit", "source"), rows)
for node, ratio in quoted.items():
    print(f"{node}: (fp16 multiply + fp16 add) / 8-bit add = {ratio:.1f}")

# %% [markdown]
# ## From the quoted figure to an array
#
# The same division, with one more part of the array on both sides at each step. An adder tree's
# sums grow a bit a level; zeros keep some adders still; packed trits must be decoded; a pipelined
# tree keeps every sum in a register, and so does the FP16 one; a group's sum is multiplied by a
# scale; the activations come from a memory beside the array. The last step is the energy of the
# weights' bits on their way from a DRAM.


# %%
def parts(values, array=array):
    """Return the energy in pJ of a multiply-accumulate by part: ternary, FP16."""
    ours = count_matmul(array, 1, layer.n, layer.k)
    opponent = Opponent.beside("fp16", array)
    theirs = count_opponent(opponent, 1, layer.n, layer.k)
    still = type(values)(values | {"data.zero_fraction": 0.0}, "no zeros")
    steps = array.rows * (ours.load_steps + ours.compute_steps)
    ends = array.rows * ours.scale_beats

    def cost(actions, times, prices=values):
        return times * sum(energy_pj(actions, prices))

    step = row_step(array)
    tree = {action: count for action, count in step.items() if action.lanes}
    registers = {action: n for action, n in step.items() if action.component == "register"}
    decode = {a: n for a, n in step.items() if a not in tree and a not in registers}
    # The rows share one mask of lanes.
    shared = cost(lane_mask(array), ours.load_steps + ours.compute_steps)
    ends_pj = cost(group_end(array), ends) + cost(scale_beat(array), ours.scale_beats)
    issued = cost(memory_register(array), ours.load_steps + ours.compute_steps)
    issued += cost(weight_beat(array), ours.weight_beats)
    load = load_chunk(array)
    entry = {a: n for a, n in load.items() if a.component not in MEMORY_ACTIONS}
    other = cost(entry, ours.activation_beats) + cost(result(array), layer.n)
    memory = sum(
        count * action_energy_pj(action, values)
        for action, count in ours.actions.items()
        if action.component in MEMORY_ACTIONS
    )
    ternary = {
        "adders at their real widths": cost(tree, steps, still),
        "zeros keep adders still": cost(tree, steps) - cost(tree, steps, still),
        "decoding and selecting trits": cost(decode, steps) + shared,
        "registers": cost(registers, steps) + issued,
        "scales, shifts, rounding": ends_pj + other,
        "activation memory": memory,
        "weights from LPDDR5": 8 * ours.streamed_bytes * values["memory.energy"],
    }
    compute, memory = energy_pj(theirs.actions, values)
    kept = {a: n for a, n in theirs.actions.items() if a.component == "register"}
    fp16 = dict.fromkeys(ternary, 0.0) | {
        "adders at their real widths": compute - cost(kept, 1),
        "registers": cost(kept, 1),
        "activation memory": memory,
        "weights from LPDDR5": 8 * theirs.streamed_bytes * values["memory.energy"],
    }
    # Nothing is lost or counted twice: the parts add up to the model's own totals.
    for found, whole in ((ternary, ours), (fp16, theirs)):
        total = sum(found.values()) - found["weights from LPDDR5"]
        assert abs(total / sum(energy_pj(whole.actions, values)) - 1) < 1e-9
    return [{name: pj / ours.macs for name, pj in each.items()} for each in (ternary, fp16)]


def ladder(values, array=array):
    """Return FP16 over ternary as parts are added, by the part added last."""
    ternary, fp16 = parts(values, array)
    ours = theirs = 0.0
    ratios = {}
    for name in ternary:
        ours, theirs = ours + ternary[name], theirs + fp16[name]
        ratios[name] = theirs / ours
    return ratios


values = inputs.values()
first = {"quoted: multiply and add / 8-bit add": quoted["7nm"]}
steps = first | ladder(values)
style.table(("counted so far", "FP16 / ternary"), steps.items())

# %%
drawn, axes = style.figure(width=9.5, height=4.2)
names = [name if at == 0 else f"+ {name}" for at, name in enumerate(steps)]
names[1] = "adders at their real widths"
colours = ["#999999"] + [style.FORMATS["ternary"][0]] * (len(names) - 1)
bars = axes.barh(names, steps.values(), color=colours)
axes.bar_label(bars, fmt="%.1fx", padding=3)
axes.invert_yaxis()
axes.set_xlim(0, max(steps.values()) * 1.12)
style.tidy(
    axes,
    x="energy of an FP16 array over that of the ternary array (times)",
    title=f"What is left of the quoted ratio, part by part: {model.name} {layer.name}, 7 nm",
    grid="x",
)
style.show(drawn, "layer_ladder")

# %% [markdown]
# **What it means.** The quoted figure compares two operations, not two arrays. The largest single
# loss is not the wider adder but what stands around it: registers, decoding and, above all, the
# activation memory, which both arrays read alike. The ratio rises again at the last step, since a
# DRAM charges by the bit and a ternary weight with its scales has fewer of them; from there on the
# arithmetic hardly counts.
#
# ## The memory wall
#
# The same energies, absolute and on a logarithmic scale, with the weights from four memories.

# %%
ternary, fp16 = parts(values)
chip = [name for name in ternary if name not in ("weights from LPDDR5", "zeros keep adders still")]
rows = {
    "arithmetic": (
        sum(ternary[name] for name in chip[:2]) + ternary["zeros keep adders still"],
        fp16[chip[0]],
    ),
    **{name: (ternary[name], fp16[name]) for name in chip[2:]},
}
bits = {
    "ternary": float(count_matmul(array, 1, layer.n, layer.k).bits_per_weight),
    "fp16": 16.0,
}
for memory in MEMORIES:
    pj = load_inputs("7nm", memory).values()["memory.energy"]
    rows[f"weights from {memory.upper()}"] = (bits["ternary"] * pj, bits["fp16"] * pj)

drawn, axes = style.figure(width=9.5, height=4.2)
for at, form in enumerate(("ternary", "fp16")):
    colour, marker = style.FORMATS[form]
    heights = [each[at] or None for each in rows.values()]
    axes.scatter(
        heights,
        list(rows),
        color=colour,
        marker=marker,
        s=55,
        label={"ternary": "ternary", "fp16": "FP16"}[form],
        zorder=3,
    )
axes.set_xscale("log")
axes.invert_yaxis()
axes.legend(loc="lower left")
style.tidy(
    axes,
    x="energy of one multiply-accumulate, pJ (logarithmic)",
    title=f"A bit from a DRAM costs more than the arithmetic on it ({bits['ternary']:.3f} and 16 "
    "bits a weight, scales included)",
)
style.show(drawn, "layer_memory_wall")
style.table(
    ("part, pJ per multiply-accumulate", "ternary", "FP16"), ((n, *e) for n, e in rows.items())
)

# %% [markdown]
# **Why 71.4x isn't yours.** It holds for an accelerator whose weights, activations and sums cost
# nothing to keep and to move. What decides is how many bits a weight has on its way: 16 over the
# bits above is the ceiling of any memory-bound saving. Against 8-bit or 4-bit weights the ceiling
# is lower still.

# %%
ours = count_matmul(array, 1, layer.n, layer.k)
rows = []
for form in ("fp16", "bf16", "int8", "int4"):
    theirs = count_opponent(Opponent.beside(form, array), 1, layer.n, layer.k)
    rows.append(
        (
            Opponent.beside(form, array).format.title,
            float(theirs.bits_per_weight),
            energy_pj(theirs.actions, values)[0] / energy_pj(ours.actions, values)[0],
            sum(energy_pj(theirs.actions, values)) / sum(energy_pj(ours.actions, values)),
            theirs.streamed_bytes / ours.streamed_bytes,
        )
    )
style.table(("array", "bits a weight", "compute", "with activations", "bits from memory"), rows)
print("the last three: times what the ternary array takes")

# %% [markdown]
# ## How far to trust it
#
# Each coefficient has a low and a high end. Moved one at a time, they shift the two ratios that
# matter by this much:

# %%
swings = []
for key, coefficient in inputs.coefficients.items():
    if not key.startswith(("energy", "memory.energy", "data")):
        continue
    ends = [list(ladder(inputs.values(end, only=key)).values()) for end in ("low", "high")]
    on_chip, whole = [sorted(each[at] for each in ends) for at in (-2, -1)]
    swings.append((on_chip[1] - on_chip[0], key, coefficient, on_chip, whole))
swings.sort(key=lambda swing: -swing[0])
style.table(
    ("input", "low to high", "unit", "on the chip", "with LPDDR5"),
    (
        (
            key,
            f"{it.low:g} to {it.high:g}",
            it.unit,
            f"{chip[0]:.2f}x to {chip[1]:.2f}x",
            f"{whole[0]:.2f}x to {whole[1]:.2f}x",
        )
        for _, key, it, chip, whole in swings[:6]
    ),
)

# %% [markdown]
# * The **counts** are exact: tests compare them with the counters of the simulated Verilog.
# * The **energies** are from the literature, for a process and not for a netlist; gates and
#   registers, which the classic tables leave out, have the widest bounds.
# * **Not counted**: wires, the clock tree beyond the registers, control, the host.
# * The **array** matters: two-bit codes cost less to decode and more to fetch, and more rows read
#   the activations less often.

# %%
style.table(
    ("array", "arithmetic, scales, rounding", "with activations", "with LPDDR5"),
    (
        (f"{shape.lanes} lanes, {shape.rows} rows, {shape.packing}", *list(found.values())[-3:])
        for packing in ("base3", "2bit")
        for rows in (4, 16)
        for shape in (ArrayConfig(rows=rows, packing=packing),)
        for found in (ladder(values, shape),)
    ),
)
print("FP16 over ternary, each beside an FP16 array of its lanes and rows")
