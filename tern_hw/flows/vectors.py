"""A small block's Verilog in Verilator, driven by arrays: a value a cycle on each port."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tern_hw.errors import TernError
from tern_hw.flows.process import run_tool
from tern_hw.flows.verilator import build_model

__all__ = ["Block", "run_vectors"]

SOURCE = Path(__file__).with_name("vectors.cpp")
#: Module that packs the ports into words, and the class of its model.
WRAPPER, PREFIX = "vectors", "Vvectors"
#: Bits of a word, in and out.
WORD_BITS = 64
#: Seconds after which a run is stopped.
RUN_LIMIT_S = 1800


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block with flat ports: at most 64 bits of inputs and one output of at most 64."""

    verilog: Path
    #: Name of the module.
    top: str
    #: Name -> bits.
    inputs: Mapping[str, int]
    output: str
    output_bits: int
    #: Cycles from the inputs to the output; 0 is a block without a clock.
    latency: int
    #: Input -> cycles by which it comes after the others.
    lags: Mapping[str, int]

    def wrapper(self) -> str:
        """Return the Verilog of the module around the block."""
        wires, low = [], 0
        for name, bits in self.inputs.items():
            wires.append(f".{name}(words_in[{low + bits - 1}:{low}])")
            low += bits
        if low > WORD_BITS or self.output_bits > WORD_BITS:
            raise TernError(f"{self.top} must have at most {WORD_BITS} bits in and out, not {low}")
        if self.latency:
            wires += [".clk(clk)", ".rst(1'b0)"]
        wires.append(f".{self.output}(words_out[{self.output_bits - 1}:0])")
        unused = f"  assign words_out[{WORD_BITS - 1}:{self.output_bits}] = 0;"
        return "\n".join(
            [
                f"module {WRAPPER} (input clk, input [{WORD_BITS - 1}:0] words_in,",
                f"  output [{WORD_BITS - 1}:0] words_out);",
                *([unused] if self.output_bits < WORD_BITS else []),
                f"  {self.top} block ({', '.join(wires)});",
                "endmodule",
                "",
            ]
        )


def run_vectors(
    block: Block, vectors: Mapping[str, NDArray[Any]], *, models: Sequence[Path] = ()
) -> NDArray[np.uint64]:
    """Return what the block answers to each vector.

    Parameters
    ----------
    block
        What to simulate.
    vectors : unsigned integers [count] each
        Input -> its values.
    models
        Verilog files of vendor cells that the block instantiates.

    Returns
    -------
    uint64 [count]

    Raises
    ------
    TernError
        If Verilator or the C++ compiler is not installed, or refuses the design.
    """
    binary = build_model(
        block.verilog,
        top=WRAPPER,
        prefix=PREFIX,
        main=SOURCE,
        wrapper=block.wrapper(),
        models=models,
    )
    words = _words(block, vectors)
    with tempfile.TemporaryDirectory(prefix="tern-") as folder:
        source, result = Path(folder) / "in", Path(folder) / "out"
        words.tofile(source)
        run_tool([binary, source, result], timeout_s=RUN_LIMIT_S)
        return np.fromfile(result, np.uint64)[block.latency :]


def _words(block: Block, vectors: Mapping[str, NDArray[Any]]) -> NDArray[np.uint64]:
    count = len(next(iter(vectors.values())))
    words = np.zeros(count + block.latency, np.uint64)
    low = 0
    for name, bits in block.inputs.items():
        lag = block.lags.get(name, 0)
        words[lag : lag + count] |= vectors[name].astype(np.uint64) << np.uint64(low)
        low += bits
    return words
