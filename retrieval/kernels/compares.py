"""Sixty-four comparisons at once, as the bits of one word: what numpy does in a mask of bytes.

Written as LLVM's portable vectors, like `lanes.py`. With AVX-512 a word of 64 codes of one byte is
a load, a subtraction and a comparison whose result is the word itself.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

CODES_AT_ONCE = 64


@intrinsic
def within64(typingctx: Any, codes: Any, start: Any, low: Any, span: Any) -> Any:  # noqa: ARG001
    """Which of 64 codes lie in [low, low + span), uint64: bit i for `codes[start + i]`.

    Args:
        codes: (n,) uint8, uint16 or uint32; all of the 64 are read.
        start: int64.
        low: of the codes' type.
        span: of the codes' type, so that it never holds all codes there can be.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        item = ir.IntType(signature.args[0].dtype.bitwidth)
        many = ir.VectorType(item, CODES_AT_ONCE)
        pointer = builder.bitcast(builder.gep(data, [args[1]]), many.as_pointer())
        held = builder.load(pointer, align=item.width // 8)
        distance = builder.sub(held, _everywhere(builder, args[2], many))
        inside = builder.icmp_unsigned("<", distance, _everywhere(builder, args[3], many))
        return builder.bitcast(inside, ir.IntType(CODES_AT_ONCE))

    return types.uint64(codes, types.int64, codes.dtype, codes.dtype), codegen


def _everywhere(builder: Any, value: Any, many: Any) -> Any:
    """A vector that has one value in all its lanes."""
    undefined = ir.Constant(many, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), many.count), [0] * many.count)
    return builder.shuffle_vector(first, undefined, zeros)
