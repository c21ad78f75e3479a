"""Vector instructions that Numba has no words for, written as LLVM's portable vectors.

LLVM lowers them to whatever the processor has: with AVX-512 VPOPCNTDQ and F16C each is one or two
instructions. Half floats need F16C (x86-64-v3) or Arm.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32, F64 = ir.FloatType(), ir.DoubleType()
HALF = ir.HalfType()
WORDS_AT_ONCE = 8
HALVES_AT_ONCE = 16
SUMS_AT_ONCE = 4  # an addition takes four cycles, and each waits for the one before in its sum
ROWS_AT_ONCE = 8
EIGHT_HALVES, EIGHT_FLOATS, EIGHT_DOUBLES = (ir.VectorType(item, 8) for item in (HALF, F32, F64))
DOUBLES_AT_ONCE = 8
FOUR_BITS, SIGN_BIT = 4, 3


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
def eight_bounds(
    typingctx: Any,  # noqa: ARG001
    coded: Any,
    numbers: Any,
    place: Any,  # noqa: ARG001
    asked: Any,
    worst: Any,  # noqa: ARG001
    bounds: Any,
) -> Any:
    """Bounds of the similarities of eight rows; give a bit for each that is not below `worst`.

    The product of a row is the sum of the query's numbers at the set bits of its code. Eight rows
    at once, since the sum over the parts of a code costs as much as its popcounts where each row is
    summed by itself: here they are summed by halves, two rows in a vector, then four, ...

    Args:
        coded: (codes (n * words,) uint64, factors (n * 2,) uint16) of rows.
        numbers: (m,) int64; the rows are the eight from `place` on.
        place: int64.
        asked: (planes (blocks, 4, 8) uint64 in one row, step float32, lowered float32). Planes are
            bit 0 of each of the query's numbers, bit 1, ..., each a two's complement of four bits;
            the bound of a row with factors (a, g) is a (step * product - lowered) + g.
        worst: float32.
        bounds: (8,) float32, filled.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        codes, factors = (cgutils.unpack_tuple(builder, args[0], 2)[i] for i in range(2))
        planes, step, lowered = cgutils.unpack_tuple(builder, args[3], 3)
        codes_data = _data(context, builder, signature.args[0][0], codes)
        factors_data = _data(context, builder, signature.args[0][1], factors)
        numbers_data = _data(context, builder, signature.args[1], args[1])
        planes_array = context.make_array(signature.args[3][0])(context, builder, planes)
        blocks = builder.udiv(planes_array.nitems, I64(4 * WORDS_AT_ONCE))
        rows = [
            builder.load(builder.gep(numbers_data, [builder.add(args[2], I64(row))]))
            for row in range(ROWS_AT_ONCE)
        ]
        counts = _products(builder, codes_data, rows, planes_array.data, blocks)
        products = builder.sitofp(counts, EIGHT_FLOATS)
        scales, shifts = _factors_of(builder, factors_data, rows)
        steps, lowers, worsts = (_spread(builder, one) for one in (step, lowered, args[4]))
        scaled = builder.fsub(builder.fmul(steps, products), lowers)
        found = builder.fadd(builder.fmul(scales, scaled), shifts)
        bounds_data = _data(context, builder, signature.args[5], args[5])
        builder.store(found, builder.bitcast(bounds_data, EIGHT_FLOATS.as_pointer()), align=4)
        passing = builder.fcmp_ordered(">=", found, worsts)
        return builder.zext(builder.bitcast(passing, I8), I64)

    return types.int64(coded, numbers, types.int64, asked, types.float32, bounds), codegen


def _products(builder: Any, codes: Any, rows: list[Any], planes: Any, blocks: Any) -> Any:
    """The products of eight rows, one in each lane."""
    words = builder.mul(blocks, I64(WORDS_AT_ONCE))
    sums = [cgutils.alloca_once_value(builder, _all(0, I64, WORDS_AT_ONCE)) for _ in rows]
    with cgutils.for_range(builder, blocks) as loop:
        offset = builder.mul(loop.index, I64(WORDS_AT_ONCE))
        at = [
            builder.add(builder.mul(offset, I64(FOUR_BITS)), I64(bit * WORDS_AT_ONCE))
            for bit in range(FOUR_BITS)
        ]
        masks = [_vector_at(builder, planes, one, I64, WORDS_AT_ONCE, 8) for one in at]
        for row, held in zip(rows, sums, strict=True):
            start = builder.add(builder.mul(row, words), offset)
            code = _vector_at(builder, codes, start, I64, WORDS_AT_ONCE, 8)
            total = builder.load(held)
            for bit, mask in enumerate(masks):
                count = _called(builder, "llvm.ctpop.v8i64", code.type, builder.and_(code, mask))
                worth = builder.shl(count, _all(bit, I64, WORDS_AT_ONCE))
                total = (builder.sub if bit == SIGN_BIT else builder.add)(total, worth)
            builder.store(total, held)
    return _summed_by_pairs(builder, [builder.load(held) for held in sums])


def _summed_by_pairs(builder: Any, vectors: list[Any]) -> Any:
    """The sums of eight vectors of eight, as one vector in the same order."""
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [_added_lanes(builder, one, other) for one, other in pairs]
    return vectors[0]


def _added_lanes(builder: Any, one: Any, other: Any) -> Any:
    """Neighbouring lanes added: first those of one vector, then those of the other."""
    evens = ir.Constant(ir.VectorType(I32, 8), list(range(0, 16, 2)))
    odds = ir.Constant(ir.VectorType(I32, 8), list(range(1, 16, 2)))
    return builder.add(
        builder.shuffle_vector(one, other, evens), builder.shuffle_vector(one, other, odds)
    )


def _factors_of(builder: Any, data: Any, rows: list[Any]) -> tuple[Any, Any]:
    """Both factors of eight rows, each as a vector of floats."""
    pairs = ir.Constant(ir.VectorType(I32, ROWS_AT_ONCE), ir.Undefined)
    words = builder.bitcast(data, I32.as_pointer())
    for place, row in enumerate(rows):
        pair = builder.load(builder.gep(words, [row]), align=2)
        pairs = builder.insert_element(pairs, pair, I32(place))
    halves = builder.bitcast(pairs, ir.VectorType(HALF, 2 * ROWS_AT_ONCE))
    wide = builder.fpext(halves, ir.VectorType(F32, 2 * ROWS_AT_ONCE))
    undefined = ir.Constant(wide.type, ir.Undefined)
    first, second = (
        ir.Constant(ir.VectorType(I32, ROWS_AT_ONCE), list(range(begin, 16, 2))) for begin in (0, 1)
    )
    return (
        builder.shuffle_vector(wide, undefined, first),
        builder.shuffle_vector(wide, undefined, second),
    )


def _spread(builder: Any, value: Any) -> Any:
    """A float in each lane of eight."""
    one = builder.insert_element(ir.Constant(EIGHT_FLOATS, ir.Undefined), value, I32(0))
    return builder.shuffle_vector(one, one, _all(0, I32, ROWS_AT_ONCE))


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
        wide = ir.VectorType(F32, HALVES_AT_ONCE)
        none = _all(0.0, F32, HALVES_AT_ONCE)
        sums = [cgutils.alloca_once_value(builder, none) for _ in range(SUMS_AT_ONCE)]

        def add(here: Any, held: Any) -> None:
            place = builder.add(args[1], here)
            bits = _vector_at(builder, rows_data, place, I16, HALVES_AT_ONCE, 2)
            values = builder.fpext(builder.bitcast(bits, ir.VectorType(HALF, HALVES_AT_ONCE)), wide)
            others = _vector_at(builder, query_data, here, F32, HALVES_AT_ONCE, 4)
            added = _called(builder, "llvm.fma.v16f32", wide, values, others, builder.load(held))
            builder.store(added, held)

        step = SUMS_AT_ONCE * HALVES_AT_ONCE
        rounds = builder.udiv(args[3], I64(step))
        with cgutils.for_range(builder, rounds) as loop:
            begin = builder.mul(loop.index, I64(step))
            for part, held in enumerate(sums):
                add(builder.add(begin, I64(part * HALVES_AT_ONCE)), held)
        vectors = builder.udiv(args[3], I64(HALVES_AT_ONCE))
        begun = builder.mul(rounds, I64(SUMS_AT_ONCE))
        with cgutils.for_range(builder, builder.sub(vectors, begun)) as loop:
            add(builder.mul(builder.add(begun, loop.index), I64(HALVES_AT_ONCE)), sums[0])
        held = [builder.load(one) for one in sums]
        halves = builder.fadd(builder.fadd(held[0], held[1]), builder.fadd(held[2], held[3]))
        total = cgutils.alloca_once_value(builder, _sum_of_lanes(builder, halves))
        done = builder.mul(vectors, I64(HALVES_AT_ONCE))
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
def half_sums(typingctx: Any, rows: Any, start: Any, wide: Any, dimension: Any) -> Any:  # noqa: ARG001
    """Inner product with a query and sum of squares of a row of half floats, both float64.

    Summed by halves: element i and i + width / 2, then those by quarters, ..., as if the row were
    filled up with zeros to the width, a power of two.

    Args:
        rows: (n,) uint16, the bits of half floats; the row begins at `start`.
        start: int64.
        wide: (3 width,) float64: a query, then room for sums.
        dimension: int64, a multiple of 8, above width / 2 and at least 16.
    """
    result = types.UniTuple(types.float64, 2)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows_data = _data(context, builder, signature.args[0], args[0])
        wide_array = context.make_array(signature.args[2])(context, builder, args[2])
        width = builder.udiv(wide_array.nitems, I64(3))
        half = builder.lshr(width, I64(1))
        rooms = [builder.gep(wide_array.data, [builder.mul(width, I64(n))]) for n in (1, 2)]
        begin = builder.gep(rows_data, [args[1]])

        def loaded(at: Any) -> tuple[Any, Any]:
            bits = _vector_at(builder, begin, at, I16, DOUBLES_AT_ONCE, 2)
            value = builder.fpext(
                builder.fpext(builder.bitcast(bits, EIGHT_HALVES), EIGHT_FLOATS), EIGHT_DOUBLES
            )
            query = _vector_at(builder, wide_array.data, at, F64, DOUBLES_AT_ONCE, 8)
            return builder.fmul(value, query), builder.fmul(value, value)

        def kept(at: Any, sums: Any) -> None:
            for room, value in zip(rooms, sums, strict=True):
                place = builder.bitcast(builder.gep(room, [at]), EIGHT_DOUBLES.as_pointer())
                builder.store(value, place, align=8)

        both = builder.udiv(builder.sub(args[3], half), I64(DOUBLES_AT_ONCE))
        with cgutils.for_range(builder, both) as loop:
            at = builder.mul(loop.index, I64(DOUBLES_AT_ONCE))
            pairs = zip(loaded(at), loaded(builder.add(at, half)), strict=True)
            kept(at, [builder.fadd(one, other) for one, other in pairs])
        whole = builder.udiv(half, I64(DOUBLES_AT_ONCE))
        with cgutils.for_range(builder, builder.sub(whole, both)) as loop:
            at = builder.mul(builder.add(both, loop.index), I64(DOUBLES_AT_ONCE))
            kept(at, loaded(at))
        sums = [_summed_by_halves(builder, room, half) for room in rooms]
        return context.make_tuple(builder, signature.return_type, sums)

    return result(rows, types.int64, wide, types.int64), codegen


def _summed_by_halves(builder: Any, data: Any, length: Any) -> Any:
    """The sum of a power of two of doubles, at least eight, which are used up."""
    left = cgutils.alloca_once_value(builder, length)
    with _while_above(builder, left, DOUBLES_AT_ONCE):
        half = builder.lshr(builder.load(left), I64(1))
        builder.store(half, left)
        with cgutils.for_range(builder, builder.udiv(half, I64(DOUBLES_AT_ONCE))) as loop:
            at = builder.mul(loop.index, I64(DOUBLES_AT_ONCE))
            one = _vector_at(builder, data, at, F64, DOUBLES_AT_ONCE, 8)
            other = _vector_at(builder, data, builder.add(at, half), F64, DOUBLES_AT_ONCE, 8)
            place = builder.bitcast(builder.gep(data, [at]), EIGHT_DOUBLES.as_pointer())
            builder.store(builder.fadd(one, other), place, align=8)
    return _sum_of_lanes(builder, _vector_at(builder, data, I64(0), F64, DOUBLES_AT_ONCE, 8))


@contextmanager
def _while_above(builder: Any, held: Any, least: int) -> Iterator[None]:
    """A loop that goes on while a number in memory is above another."""
    condition, body, after = (builder.append_basic_block(name) for name in ("if", "do", "end"))
    builder.branch(condition)
    builder.position_at_end(condition)
    builder.cbranch(builder.icmp_unsigned(">", builder.load(held), I64(least)), body, after)
    builder.position_at_end(body)
    yield
    builder.branch(condition)
    builder.position_at_end(after)


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
