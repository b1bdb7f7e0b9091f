"""Quantisation methods, swappable by name: `prepare`, train where it makes sense, `convert`."""

from collections.abc import Mapping
from typing import Any, Final

from quant.methods.absmean import AbsMean
from quant.methods.aware import Aware
from quant.methods.awq import Awq
from quant.methods.base import Method, Quantizer, convert, quantized_linears
from quant.methods.config import MethodConfig
from quant.methods.dlt import Dlt
from quant.methods.fdb import Fdb
from quant.methods.gptq import Gptq
from quant.methods.omniquant import OmniQuant
from quant.methods.pb_llm import PbLlm
from quant.methods.pt2_llm import Pt2Llm
from quant.methods.rtn import Als, Rtn
from quant.methods.seq import Seq
from quant.methods.twn import Twn
from tern_hw.errors import TernError

__all__ = [
    "METHODS",
    "Method",
    "MethodConfig",
    "Quantizer",
    "convert",
    "method_config",
    "named_method",
    "quantized_linears",
]

#: Every method, by name.
METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Dlt(),
        Twn(),
        Fdb(),
        Seq(),
        AbsMean(),
        Rtn(),
        Als(),
        Gptq(),
        Awq(),
        OmniQuant(),
        PbLlm(),
        Pt2Llm(),
        Aware(),
    )
}


def named_method(name: str) -> Method:
    """Return a method by its name."""
    if name not in METHODS:
        raise TernError(f"method must be one of {', '.join(METHODS)}, not {name!r}")
    return METHODS[name]


def method_config(name: str, options: Mapping[str, Any]) -> MethodConfig:
    """Return a method's options from a table of names and values, as a file holds it."""
    return named_method(name).config_type.from_json(options)
