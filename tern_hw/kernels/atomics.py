"""Memory that threads share, for compiled functions: atomic words, and jobs called by address."""

from typing import Any, Final

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["call_job", "exchange_if", "fetch_add", "load", "pause", "pointer"]

I64: Final = ir.IntType(64)
#: What tells a processor that a loop only waits.
PAUSES: Final = {"x86_64": "llvm.x86.sse2.pause", "i686": "llvm.x86.sse2.pause"}


def _word(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """Return array[index] as the last thread that stored it left it (acquire)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = _word(context, builder, array, *arguments)
        return builder.load_atomic(word, "acquire", 8, typ=I64)

    return types.int64(array, types.int64), generate


@intrinsic
def fetch_add(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Add to array[index] and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = _word(context, builder, array, *arguments[:2])
        return builder.atomic_rmw("add", word, arguments[2], "seq_cst")

    return types.int64(array, types.int64, types.int64), generate


@intrinsic
def exchange_if(typing_context: Any, array: Any, index: Any, expected: Any, value: Any) -> Any:
    """Set array[index] if it is what is expected, and return whether it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = _word(context, builder, array, *arguments[:2])
        pair = builder.cmpxchg(word, arguments[2], arguments[3], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(array, types.int64, types.int64, types.int64), generate


@intrinsic
def pause(typing_context: Any) -> Any:
    """Wait for as long as a load takes, or not at all."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name = PAUSES.get(binding.get_process_triple().partition("-")[0])
        if name is not None:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def pointer(typing_context: Any, address: Any) -> Any:
    """Return an address as a pointer, for `carray`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic
def call_job(typing_context: Any, function: Any, numbers: Any, first: Any, last: Any) -> Any:
    """Call function(numbers, first, last), a C function by its address, numbers by theirs."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, I64, I64])
        target = builder.inttoptr(arguments[0], kind.as_pointer())
        data = builder.inttoptr(arguments[1], cgutils.voidptr_t)
        builder.call(target, [data, arguments[2], arguments[3]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate
