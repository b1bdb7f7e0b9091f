"""Flat port names of an AXI4-Stream."""

from amaranth.lib.wiring import In, Out

__all__ = ["axi_stream_ports"]


def axi_stream_ports(prefix: str, bits: int, *, source: bool) -> dict:
    """Return the members of an AXI4-Stream (AMBA IHI 0051), seen from the array."""
    forward, backward = (Out, In) if source else (In, Out)
    return {
        f"{prefix}_tdata": forward(bits),
        f"{prefix}_tvalid": forward(1),
        f"{prefix}_tready": backward(1),
        f"{prefix}_tlast": forward(1),
    }
