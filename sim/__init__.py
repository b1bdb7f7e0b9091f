"""Test benches of the emitted Verilog under cocotb, with clients that others wrote (cocotbext-axi).

They see the gateware only as a Verilog file and hold it to `tern_hw.reference`, bit for bit.
"""
