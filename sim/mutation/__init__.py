"""Arrays broken on purpose, one place at a time, and whether the benches notice.

Yosys' `mutate` draws the places. All mutants stand in one Verilog file, behind a number that the
simulation reads when it starts, so that one compiled model serves them all.
"""
