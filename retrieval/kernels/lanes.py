"""Vector instructions that Numba has no words for, written as LLVM's portable vectors.

LLVM lowers them to whatever the processor has: with AVX-512 VPOPCNTDQ and F16C each is one or two
instructions. Half floats need F16C (x86-64-v3) or Arm.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32 = ir.FloatType()
HALF = ir.HalfType()
WORDS_AT_ONCE = 8
HALVES_AT_ONCE = 16
FOUR_BITS_MAX = 15


@intrinsic
def ones(typingctx: Any, word: Any) -> Any:  # noqa: ARG001
    """How many bits of a uint64 are set, int64."""

    def codegen(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


@intrinsic
def lowest(typingctx: Any, word: Any) -> Any:  # noqa: ARG001
    """The place of the lowest set bit of a uint64 that is not 0, int64."""

    def codegen(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.cttz(args[0], I1(1))

    return types.int64(types.uint64), codegen


def _data(context: Any, builder: Any, type_: Any, array: Any) -> Any:
    return context.make_array(type_)(context, builder, array).data


def _vector_at(builder: Any, data: Any, place: Any, item: Any, lanes: int, align: int) -> Any:
    pointer = builder.gep(data, [place])
    vector = ir.VectorType(item, lanes)
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=align)


def _all(value: float, item: Any, lanes: int) -> Any:
    return ir.Constant(ir.VectorType(item, lanes), [value] * lanes)


def _called(builder: Any, name: str, result: Any, *values: Any) -> Any:
    """Call one of LLVM's own functions."""
    kind = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)


@intrinsic
def code_product(typingctx: Any, codes: Any, start: Any, planes: Any, blocks: Any) -> Any:  # noqa: ARG001
    """Sum of 2 u - 15 over the set bits of a code, where u are the query's four-bit numbers.

    Args:
        codes: (n,) uint64; the code begins at `start`; `blocks` x 8 words are read.
        start: int64.
        planes: (blocks, 4, 8) uint64 in one row: bit 0 of each number, bit 1, ...
        blocks: int64.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        codes_data = _data(context, builder, signature.args[0], args[0])
        planes_data = _data(context, builder, signature.args[2], args[2])
        total = cgutils.alloca_once_value(builder, _all(0, I64, WORDS_AT_ONCE))
        with cgutils.for_range(builder, args[3]) as loop:
            place = builder.add(args[1], builder.mul(loop.index, I64(WORDS_AT_ONCE)))
            code = _vector_at(builder, codes_data, place, I64, WORDS_AT_ONCE, 8)
            plane_place = builder.mul(loop.index, I64(4 * WORDS_AT_ONCE))
            added = builder.load(total)
            for bit in range(4):
                here = builder.add(plane_place, I64(bit * WORDS_AT_ONCE))
                plane = _vector_at(builder, planes_data, here, I64, WORDS_AT_ONCE, 8)
                count = _called(builder, "llvm.ctpop.v8i64", code.type, builder.and_(code, plane))
                shifted = builder.shl(count, _all(bit + 1, I64, WORDS_AT_ONCE))
                added = builder.add(added, shifted)
            bits = _called(builder, "llvm.ctpop.v8i64", code.type, code)
            times15 = builder.sub(builder.shl(bits, _all(4, I64, WORDS_AT_ONCE)), bits)
            builder.store(builder.sub(added, times15), total)
        return _called(builder, "llvm.vector.reduce.add.v8i64", I64, builder.load(total))

    return types.int64(codes, types.int64, planes, types.int64), codegen


@intrinsic
def half_product(typingctx: Any, rows: Any, start: Any, query: Any, dimension: Any) -> Any:  # noqa: ARG001
    """Inner product of a row of half floats and a query, float32, in an order of its own.

    Args:
        rows: (n,) uint16, the bits of half floats; the row begins at `start`.
        start: int64.
        query: (d,) float32.
        dimension: int64, d.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows_data = _data(context, builder, signature.args[0], args[0])
        query_data = _data(context, builder, signature.args[2], args[2])
        step = 2 * HALVES_AT_ONCE
        wide = ir.VectorType(F32, HALVES_AT_ONCE)
        sums = [cgutils.alloca_once_value(builder, _all(0.0, F32, HALVES_AT_ONCE)) for _ in "ab"]
        rounds = builder.udiv(args[3], I64(step))
        with cgutils.for_range(builder, rounds) as loop:
            begin = builder.mul(loop.index, I64(step))
            for part, held in enumerate(sums):
                here = builder.add(begin, I64(part * HALVES_AT_ONCE))
                place = builder.add(args[1], here)
                bits = _vector_at(builder, rows_data, place, I16, HALVES_AT_ONCE, 2)
                halves = builder.bitcast(bits, ir.VectorType(HALF, HALVES_AT_ONCE))
                values = builder.fpext(halves, wide)
                others = _vector_at(builder, query_data, here, F32, HALVES_AT_ONCE, 4)
                added = _called(
                    builder, "llvm.fma.v16f32", wide, values, others, builder.load(held)
                )
                builder.store(added, held)
        both = builder.fadd(builder.load(sums[0]), builder.load(sums[1]))
        total = cgutils.alloca_once_value(builder, _sum_of_lanes(builder, both))
        done = builder.mul(rounds, I64(step))
        with cgutils.for_range(builder, builder.sub(args[3], done)) as loop:
            here = builder.add(done, loop.index)
            bits = builder.load(builder.gep(rows_data, [builder.add(args[1], here)]))
            value = builder.fpext(builder.bitcast(bits, HALF), F32)
            other = builder.load(builder.gep(query_data, [here]))
            builder.store(builder.fma(value, other, builder.load(total)), total)
        return builder.load(total)

    return types.float32(rows, types.int64, query, types.int64), codegen


def _sum_of_lanes(builder: Any, vector: Any) -> Any:
    """The sum by halves, in a fixed order."""
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        low = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
        high = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes, 2 * lanes)))
        undefined = ir.Constant(vector.type, ir.Undefined)
        vector = builder.fadd(
            builder.shuffle_vector(vector, undefined, low),
            builder.shuffle_vector(vector, undefined, high),
        )
    return builder.extract_element(vector, I32(0))


@intrinsic
def half_as_double(typingctx: Any, bits: Any) -> Any:  # noqa: ARG001
    """The value of a half float given by its bits (uint16), float64."""

    def codegen(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], HALF), ir.DoubleType())

    return types.float64(types.uint16), codegen


@intrinsic
def half_as_float(typingctx: Any, bits: Any) -> Any:  # noqa: ARG001
    """The value of a half float given by its bits (uint16), float32."""

    def codegen(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], HALF), F32)

    return types.float32(types.uint16), codegen


@intrinsic
def bits_set(typingctx: Any, bytes_: Any, start: Any, wanted: Any) -> Any:  # noqa: ARG001
    """Which of the 64 bytes from `start` on have a bit in common with `wanted`, uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = _data(context, builder, signature.args[0], args[0])
        values = _vector_at(builder, data, args[1], I8, 64, 1)
        one = builder.insert_element(
            ir.Constant(values.type, ir.Undefined), builder.trunc(args[2], I8), I32(0)
        )
        mask = builder.shuffle_vector(one, one, _all(0, I32, 64))
        common = builder.and_(values, mask)
        return builder.bitcast(builder.icmp_unsigned("!=", common, _all(0, I8, 64)), I64)

    return types.uint64(bytes_, types.int64, types.int64), codegen


@intrinsic
def fetch(typingctx: Any, array: Any, place: Any) -> Any:  # noqa: ARG001
    """Ask for the cache line of `array[place]`; nothing is read."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = _data(context, builder, signature.args[0], args[0])
        pointer = builder.bitcast(builder.gep(data, [args[1]]), I8.as_pointer())
        _called(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, I32(0), I32(3), I32(1))
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen
