"""A chain of the ECP5's carry cells: an addition whose operands pass a small table first."""

from collections.abc import Sequence

from amaranth.hdl import Const, Instance, Module, Signal, Value

__all__ = ["carry_chain"]

#: What the four inputs of one bit are connected to, in the order of the table's index.
Row = tuple[Value, Value, Value, Value]


def carry_chain(
    m: Module,
    rows: Sequence[Row],
    table: int,
    carry: Value,
    *,
    sums: Sequence[Value],
    name: str = "",
) -> None:
    """Add up two bits a cell (Lattice FPGA-TN-02200, slice in ripple mode).

    A bit's sum is its table's entry XOR its carry-in; its carry-out is the carry-in where the
    entry is 1, and else what the table's low four entries say of A and B.

    Parameters
    ----------
    rows
        Inputs (A, B, C, D) of each bit, lowest first; an even number of bits.
    table
        16 entries, index 8 * D + 4 * C + 2 * B + A.
    carry
        Carry into the lowest bit.
    sums
        The bits that come out.
    name
        Prefix of the cells' names; without one Amaranth numbers them.
    """
    for at in range(0, len(rows), 2):
        out = Signal(name=f"{name}_carry_{at}" if name else "carry")
        ports = {}
        for half in range(2):
            for pin, value in zip("ABCD", rows[at + half], strict=True):
                ports[f"i_{pin}{half}"] = value
            ports |= {
                f"o_S{half}": sums[at + half],
                f"p_INIT{half}": Const(table, 16),
                f"p_INJECT1_{half}": "NO",
            }
        cell = Instance("CCU2C", i_CIN=carry, o_COUT=out, **ports)
        if name:
            m.submodules[f"{name}_{at}"] = cell
        else:
            m.submodules += cell
        carry = out
