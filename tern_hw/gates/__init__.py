"""What a block's gates switch and what that costs: netlist, toggles, energy.

::

    Verilog --> flows.netlist --> netlist --> simulator --> toggles of every net
                                     |                          |
    Liberty file --> liberty ---.    |                          |
    published table --> cmos ---+--> cells -----------------> energy
"""

from tern_hw.gates.energy import GateEnergy, measure

__all__ = ["GateEnergy", "measure"]
