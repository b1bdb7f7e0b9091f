"""Flat port names: of an AXI4-Stream, and of a core that takes its packets from such streams."""

from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig

__all__ = ["axi_stream_ports", "core_ports"]


def axi_stream_ports(prefix: str, bits: int, *, source: bool) -> dict:
    """Return the members of an AXI4-Stream (AMBA IHI 0051), seen from the array."""
    forward, backward = (Out, In) if source else (In, Out)
    return {
        f"{prefix}_tdata": forward(bits),
        f"{prefix}_tvalid": forward(1),
        f"{prefix}_tready": backward(1),
        f"{prefix}_tlast": forward(1),
    }


def core_ports(config: ArrayConfig) -> dict:
    """Return the members of an array's core: its streams, and what its registers see of it."""
    ports: dict = {}
    for name in config.input_streams:
        bits = 8 * getattr(config, f"{name}_beat_bytes")
        ports |= axi_stream_ports(name, bits, source=False)
    return {
        **ports,
        **axi_stream_ports("result", config.result_bits, source=True),
        "start": In(1),
        "last_n": In(config.max_n.bit_length()),
        "last_k": In(config.max_k.bit_length()),
        "busy": Out(1),
        "finished": Out(1),
        "counting": Out(1),
        "faults": Out(6),
        "stalls": Out(4),
    }
