"""What blocks are fed with makes them compute the layer: against integers and fractions."""

import json
from fractions import Fraction

import numpy as np
import pytest

from tern_hw.config import ArrayConfig
from tern_hw.errors import TernError
from tern_hw.flows.netlist import gate_netlist
from tern_hw.gates.__main__ import main
from tern_hw.gates.cmos import CMOS
from tern_hw.gates.comparison import compare
from tern_hw.gates.fused import running_sums
from tern_hw.gates.layer import random_layer
from tern_hw.gates.netlist import read_netlist
from tern_hw.gates.simulator import simulate
from tern_hw.gates.stimulus import dot_work, mac_work, scale_work
from tern_hw.gateware.blocks import emit_block

#: A short last group and a short last chunk; base-3 is decoded in two cycles.
CONFIG = ArrayConfig(lanes=8, group_size=16, packing="base3", max_k=64, max_n=64)
#: The same in a module that multiplies in one cycle (of integers): a stand-in for a MAC.
INTEGER_MAC = """
module mac(input clk, input rst, input [15:0] a, input [15:0] b, input [15:0] c,
           output reg [15:0] result);
  initial result = 0;
  always @(posedge clk) result <= a ^ b ^ c;
endmodule
"""


def layer_of(config, k=37, zeros=0.4):
    return random_layer(5, 8, k, 3, config, zeros=zeros)


def last_sums(layer, x):
    """Return trit * x summed over the row's last group, [M, N], in Python integers."""
    start = (layer.matrix.in_features - 1) // 16 * 16
    trits = layer.matrix.digits().astype(object) - 1
    return x[:, start:].astype(object) @ trits[:, start:].T


@pytest.mark.parametrize(
    ("activation", "packing"), [("int8", "base3"), ("fp16", "base3"), ("int8", "2bit")]
)
def test_netlist_of_the_dot_product_computes_the_layer(activation, packing):
    config = ArrayConfig.from_dict(
        CONFIG.as_dict() | {"activation": activation, "packing": packing}
    )
    layer = random_layer(5, 16, 37, 3, config, zeros=0.4)
    x = layer.activations(config.activation)
    work = dot_work(config, layer.matrix.digits(), x, parts=4)
    module, verilog = emit_block(config, "dot")
    netlist = read_netlist(gate_netlist(verilog, top=module), CMOS)
    seen = simulate(netlist, work.stimulus, warm_up=work.warm_up).outputs["total"]
    weights = np.array([1 << at for at in range(seen.shape[2] - 1)] + [-(1 << seen.shape[2] - 1)])
    totals = (seen * weights).sum(axis=2)[:, work.latency :]
    assert (totals == work.expected[:, : totals.shape[1]]).all()
    # The oracle of that: the last step of the first row of a share, by Python integers.
    units = [
        [int(Fraction(float(value)) * (1 if activation == "int8" else 2**24)) for value in row]
        for row in x
    ]
    oracle = last_sums(layer, np.array(units, object))
    steps = config.steps(37)
    for share in range(4):
        for token in range(3):
            assert totals[share * 3 + token, steps - 1] == oracle[token, share * 4]


def test_layer_in_other_groups_than_the_arrays_is_refused():
    other = ArrayConfig(lanes=8, group_size=8, max_k=64)
    with pytest.raises(TernError, match="group_size must be the layer's 16, not 8"):
        next(compare(other, layer_of(CONFIG), [], stand_in, parts=4))


def test_macs_of_a_cycle_leave_padding_out():
    config = CONFIG
    layer = layer_of(config)
    work = dot_work(config, layer.matrix.digits(), layer.activations(config.activation), parts=4)
    assert work.macs_per_cycle == 37 / 5
    assert work.stimulus["x"].shape == (12, 2 * 5, 8)


def test_scales_come_at_the_end_of_each_group():
    layer = layer_of(CONFIG)
    x = layer.activations(CONFIG.activation)
    dot = dot_work(CONFIG, layer.matrix.digits(), x, parts=4)
    work = scale_work(CONFIG, dot, layer.matrix.scale, layer.matrix.shift, x, parts=4)
    valid = work.stimulus["valid"][0, :, 0].tolist()
    # Chunks 0 1 | 2 3 | 4, twice; the factors come a cycle before.
    assert [0, *([0, 1, 0, 1, 1] * 2)][:-1] == valid
    at = 3  # the second group's end, the first row of the first share, token 0
    assert work.stimulus["scale"][0, at, 0] == layer.matrix.scale[0, 1].view(np.uint16)
    assert work.stimulus["shift"][0, at, 0] == layer.matrix.shift[0, 1].view(np.uint16)
    assert work.stimulus["inputs"][0, at + 1, 0] == x[0, 16:32].astype(int).sum()
    trits = layer.matrix.digits()[0, 16:32].astype(int) - 1
    assert work.stimulus["dot"][0, at + 1, 0] == trits @ x[0, 16:32].astype(int)


def test_products_in_turn_are_not_measured():
    layer = layer_of(CONFIG)
    x = layer.activations(CONFIG.activation)
    dot = dot_work(CONFIG, layer.matrix.digits(), x, parts=4)
    in_turn = ArrayConfig.from_dict(CONFIG.as_dict() | {"products": 1})
    with pytest.raises(TernError, match=r"^products must be 2 where switching .*, not 1$"):
        scale_work(in_turn, dot, layer.matrix.scale, layer.matrix.shift, x, parts=4)


def nearest(value, kind):
    """Round a fraction to a float format, ties to even, by looking at the neighbours."""
    with np.errstate(over="ignore"):
        guess = kind(float(value))
    around = [np.nextafter(guess, kind(-np.inf)), guess, np.nextafter(guess, kind(np.inf))]
    raw = np.uint16 if kind is np.float16 else np.uint32
    return min(
        (each for each in around if np.isfinite(each)),
        key=lambda each: (abs(Fraction(float(each)) - value), int(each.view(raw)) & 1),
    )


@pytest.mark.parametrize("accumulator", ["fp16", "fp32"])
def test_running_sums_are_rounded_once(accumulator):
    kind = np.float16 if accumulator == "fp16" else np.float32
    rng = np.random.default_rng(11)
    # Exponents far apart, so that float64 alone would round twice.
    shape = (40, 12)
    weight = (rng.normal(0, 1, shape) * 2.0 ** rng.integers(-12, 4, shape)).astype(np.float16)
    x = (rng.normal(0, 1, shape) * 2.0 ** rng.integers(-14, 4, shape)).astype(np.float16)
    sums = running_sums(weight, x, accumulator)
    for row in range(shape[0]):
        c = Fraction(0)
        for k in range(shape[1]):
            c = Fraction(float(weight[row, k])) * Fraction(float(x[row, k])) + c
            rounded = nearest(c, kind)
            assert sums[row, k] == rounded
            c = Fraction(float(rounded))


@pytest.mark.parametrize(
    ("accumulator", "terms", "last"),
    [
        # A tie of binary16 in the product (683 * 3 = 2049), tipped by a sum of 2**-24.
        ("fp16", [(2.0**-12, 2.0**-12), (683, 3)], 2050),
        ("fp16", [(-(2.0**-12), 2.0**-12), (683, 3)], 2048),
        ("fp16", [(683, 3)], 2048),
        ("fp16", [(32768, 1), (32752, 1)], np.inf),
        # Half a place of binary32, and one beyond float64's 53 bits below.
        ("fp32", [(4096, 4096), (1, 1)], 2.0**24),
        ("fp32", [(4096, 4096), (1, 1 + 2.0**-10)], 2.0**24 + 2),
        ("fp32", [(32768, 32768), (2.0**-24, 2.0**-24)], 2.0**30),
    ],
)
def test_ties_are_decided_by_what_lies_far_below(accumulator, terms, last):
    weight, x = (np.array(each, np.float16) for each in zip(*terms, strict=True))
    assert running_sums(weight, x, accumulator)[-1] == last


@pytest.mark.parametrize(("latency", "loop"), [(1, 1), (2, 1), (5, 4)])
def test_macs_inputs_come_in_turn_and_in_time(latency, loop):
    rng = np.random.default_rng(2)
    weight = rng.normal(0, 1, (8, 3)).astype(np.float16)
    x = rng.normal(0, 1, (2, 3)).astype(np.float16)
    work = mac_work(weight, x, parts=2, accumulator="fp32", latency=latency, loop=loop)
    a, b, c = (work.stimulus[name][..., 0] for name in "abc")
    assert a.shape == (4, 4 * 3)
    stream, rows = 1, weight[:4]  # the first share's rows, token 1
    for turn in range(4 // loop):
        for k in range(3):
            for row in range(loop):
                cycle = (turn * 3 + k) * loop + row
                assert a[stream, cycle] == x[1, k].view(np.uint16)
                assert b[stream, cycle] == rows[turn * loop + row, k].view(np.uint16)
    # c is the result of `loop` cycles before, 0 at a row's first input.
    late = latency - loop
    for cycle in range(12 - late):
        first = cycle // loop % 3 == 0
        wanted = 0 if first else work.expected[stream, cycle - loop]
        assert c[stream, cycle + late] == wanted


@pytest.mark.parametrize("zeros", [0.0, 0.25, 1.0])
def test_random_layer_has_the_zeros_asked_for(zeros):
    layer = random_layer(1, 16, 200, 2, CONFIG, zeros=zeros)
    assert layer.zeros == pytest.approx(zeros, abs=0.01)
    assert (random_layer(1, 16, 200, 2, CONFIG, zeros=zeros).weight == layer.weight).all()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: layer_of(CONFIG, zeros=1.5), "zeros must be from 0 to 1, not 1.5"),
        (lambda: layer_of(CONFIG).some_rows(9), "rows must be from 1 to the layer's 8, not 9"),
        (
            lambda: dot_work(CONFIG, np.ones((6, 8), np.uint8), np.ones((1, 8), np.int8), parts=4),
            "rows must be a multiple of 4, not 6",
        ),
        (
            lambda: dot_work(
                ArrayConfig(lanes=8, group_size=4),
                np.ones((4, 8), np.uint8),
                np.ones((1, 8), np.int8),
                parts=4,
            ),
            "group_size must be at least the lanes here, not 4",
        ),
        (
            lambda: mac_work(
                np.ones((4, 8), np.float16),
                np.ones((1, 8), np.float16),
                parts=2,
                accumulator="fp32",
                latency=3,
                loop=3,
            ),
            "rows of a stream must be a multiple of the loop 3, not 2",
        ),
        (
            lambda: running_sums(np.ones(1, np.float16), np.ones(1, np.float16), "fp64"),
            "accumulator must be one of fp16, fp32, not 'fp64'",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused(call, sentence):
    with pytest.raises(TernError, match=sentence):
        call()


def stand_in(config, name):
    """Return a module of the block's name with its ports, and next to nothing inside."""
    bits = {"dot": config.sum_bits, "x": config.lanes * config.fixed_bits}
    wide = {"codes": 8 * config.row_beat_bytes, "mask": config.lanes, "x": bits["x"]}
    wide |= {"valid": 1, "last": 1}
    if name == "scale":
        wide = {"dot": bits["dot"], "inputs": bits["dot"], "scale": 16, "shift": 16}
        wide |= dict.fromkeys(("valid", "last", "scaled"), 1)
    ports = ", ".join(f"input [{width - 1}:0] {port}" for port, width in wide.items())
    taps = " ^ ".join(f"(^{port})" for port in wide)
    return name, (
        f"module {name}(input clk, input rst, {ports}, output reg total);\n"
        f"initial total = 0; always @(posedge clk) total <= {taps};\nendmodule\n"
    )


def test_command_measures_all_blocks(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tern_hw.gateware.blocks.emit_block", stand_in)
    path = tmp_path / "mac.v"
    path.write_text(INTEGER_MAC)
    arguments = ["--lanes", "8", "--group-size", "16", "--rows", "8", "--inputs", "37"]
    arguments += ["--tokens", "3", "--packing", "base3", "--mac", f"{path}:fp16:1:1", "--json"]
    assert main(arguments) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["shape"] == [8, 37]
    names = [block["name"] for block in facts["blocks"]]
    assert names == [
        "ternary int8 dot",
        "ternary int8 scale",
        "ternary fp16 dot",
        "ternary fp16 scale",
        "FP16 MAC mac: fp16 sum, 1 register(s)",
    ]
    pj = [block["pj_per_mac"]["value"] for block in facts["blocks"]]
    assert all(value > 0 for value in pj)
    assert pj[0] < pj[2]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--mac", "x.v:fp16:1"], "--mac must be FILE:SUM:LATENCY:LOOP, not 'x.v:fp16:1'"),
        (["--mac", "x.v:fp16:1:one"], "--mac must be FILE:SUM:LATENCY:LOOP"),
        (["--mac", "no/x.v:fp16:1:1"], "--mac must name a readable file, not no/x.v"),
        (["--activations", "x.npy"], "must stand beside a model and a layer"),
        (["model/"], "model must stand beside a layer, --activations and --weights"),
        (["--rows", "0"], "rows must be from 1"),
        (["--liberty", "no.lib"], "liberty must be an existing file or osu018, not no.lib"),
    ],
)
def test_command_refuses_with_a_sentence(arguments, sentence):
    with pytest.raises(TernError, match=sentence):
        main(arguments)
