"""A Verilog shell around the array that registers its inputs, so that a cycle is one evaluation.

A compiled model re-evaluates all logic behind an input at every call, once before and once at the
clock edge. With the inputs behind registers (a synchronous test bench's), everything happens at
the edge: the outputs are those of the cycle that has begun. The array itself is unchanged.
"""

from tern_hw.config import ArrayConfig

__all__ = ["WRAPPER", "wrapper_verilog"]

#: Name of the wrapping module.
WRAPPER = "registered_inputs"
#: AXI4-Lite: signal -> bits, as the array sees them.
AXI_LITE_INPUTS = {
    "awaddr": 8,
    "awprot": 3,
    "awvalid": 1,
    "wdata": 32,
    "wstrb": 4,
    "wvalid": 1,
    "bready": 1,
    "araddr": 8,
    "arprot": 3,
    "arvalid": 1,
    "rready": 1,
}
AXI_LITE_OUTPUTS = {
    "awready": 1,
    "wready": 1,
    "bresp": 2,
    "bvalid": 1,
    "arready": 1,
    "rdata": 32,
    "rresp": 2,
    "rvalid": 1,
}


def ports(config: ArrayConfig) -> tuple[dict[str, int], dict[str, int]]:
    """Return the array's inputs and outputs, but for the clock, with their bits."""
    inputs, outputs = {"rst": 1}, {}
    for name in config.input_streams:
        prefix = f"s_axis_{name}_t"
        data_bits = 8 * getattr(config, f"{name}_beat_bytes")
        inputs |= {f"{prefix}data": data_bits, f"{prefix}valid": 1, f"{prefix}last": 1}
        outputs[f"{prefix}ready"] = 1
    outputs |= {"m_axis_result_tdata": config.result_bits}
    outputs |= {"m_axis_result_tvalid": 1, "m_axis_result_tlast": 1}
    inputs["m_axis_result_tready"] = 1
    inputs |= {f"s_axil_{name}": bits for name, bits in AXI_LITE_INPUTS.items()}
    outputs |= {f"s_axil_{name}": bits for name, bits in AXI_LITE_OUTPUTS.items()}
    return inputs, outputs


def wrapper_verilog(config: ArrayConfig) -> str:
    """Return the Verilog of module `WRAPPER` around the array of a configuration."""
    inputs, outputs = ports(config)
    heads = [f"  input [{bits - 1}:0] {name}" for name, bits in inputs.items()]
    heads += [f"  output [{bits - 1}:0] {name}" for name, bits in outputs.items()]
    registers = [f"  reg [{bits - 1}:0] now_{name} = 0;" for name, bits in inputs.items()]
    moves = [f"    now_{name} <= {name};" for name in inputs]
    wires = [f"    .{name}(now_{name})" for name in inputs]
    wires += [f"    .{name}({name})" for name in outputs]
    lines = [
        f"module {WRAPPER} (",
        ",\n".join(["  input clk", *heads]),
        ");",
        *registers,
        "  always @(posedge clk) begin",
        *moves,
        "  end",
        f"  {config.name} array (",
        ",\n".join(["    .clk(clk)", *wires]),
        "  );",
        "endmodule",
    ]
    return "\n".join(lines) + "\n"
