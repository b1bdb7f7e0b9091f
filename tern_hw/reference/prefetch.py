"""A hint that memory will be read soon, for compiled functions."""

from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["prefetch"]

#: Arguments of llvm.prefetch: to be read, kept in every cache, data.
READ, KEEP, DATA = 0, 3, 1

if config.DISABLE_JIT:

    def prefetch(array: Any, index: int) -> None:
        """Do nothing: a hint is for compiled code."""

else:

    @intrinsic
    def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
        """Fetch the cache line of array.flat[index]; an index outside is harmless.

        LLVM's own intrinsic: targets without such an instruction ignore it.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(array)(context, builder, arguments[0]).data
            hint = ir.FunctionType(ir.VoidType(), [data.type] + 3 * [cgutils.int32_t])
            function = cgutils.get_or_insert_function(builder.module, hint, "llvm.prefetch.p0")
            options = [cgutils.int32_t(option) for option in (READ, KEEP, DATA)]
            builder.call(function, [builder.gep(data, [arguments[1]]), *options])
            return context.get_dummy_value()

        return types.void(array, types.intp), generate
