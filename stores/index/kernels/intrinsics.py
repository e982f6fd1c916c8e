"""Machine instructions that numba has no name for: prefetching, counting bits, adding products of pairs."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def prefetch(context: Any, array: Any, element: Any) -> Any:
    """Asks for the cache line of a flat array's element, without waiting: random rows come 3 times faster."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = target.make_array(signature.args[0])(target, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), flag, flag, flag])
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name=name)
        # To read, worth keeping in every level, data.
        builder.call(function, [address, flag(0), flag(3), flag(1)])
        return target.get_dummy_value()

    return types.void(array, types.intp), generate


_LINE = 8
"""uint64 words of a cache line."""


@intrinsic
def weigh(context: Any, bits: Any, row: Any, planes: Any) -> Any:
    """Set bits that a row of `bits`, uint64 (n, words), shares with planes (5, words), words a multiple of 8:
    the first four planes count 1, 2, 4 and 8, in the low half of the result; the fifth is the high half."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        line = ir.VectorType(word, _LINE)
        rows, others = (
            target.make_array(signature.args[at])(target, builder, arguments[at]) for at in (0, 2)
        )
        width = builder.extract_value(rows.shape, 1)
        first = builder.mul(arguments[1], width)
        count = _declared(builder, f"llvm.ctpop.v{_LINE}i64", ir.FunctionType(line, [line]))

        def load(array: Any, at: Any) -> Any:
            return builder.load(builder.bitcast(builder.gep(array.data, [at]), line.as_pointer()), align=8)

        total = cgutils.alloca_once_value(builder, ir.Constant(line, None))
        with cgutils.for_range_slice(builder, word(0), width, word(_LINE), word) as (start, _):
            values, summed = load(rows, builder.add(first, start)), builder.load(total)
            for plane, shift in enumerate((0, 1, 2, 3, 32)):
                other = load(others, builder.add(builder.mul(word(plane), width), start))
                shared = builder.call(count, [builder.and_(values, other)])
                by = ir.Constant(line, [shift] * _LINE)
                summed = builder.add(summed, builder.shl(shared, by) if shift else shared)
            builder.store(summed, total)
        name = f"llvm.vector.reduce.add.v{_LINE}i64"
        reduced = _declared(builder, name, ir.FunctionType(word, [line]))
        return builder.call(reduced, [builder.load(total)])

    return types.uint64(bits, types.intp, planes), generate


_LANES = 32
"""Products per step: two registers of AVX2, one of AVX-512. Rows are whole words of 64."""


@intrinsic
def row_dot(context: Any, left: Any, left_row: Any, right: Any, right_row: Any) -> Any:
    """The int32 inner product of two rows: int8 or int16 arrays (n, width), width a multiple of 64.

    Exact, so the same on every machine. numba widens int32 products to int64, which no processor has many
    lanes for; here pairs of int16 products are added into int32, the instruction that they have.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, lanes = ir.IntType(64), ir.IntType(32)
        total_type = ir.VectorType(lanes, _LANES // 2)
        arrays = [target.make_array(signature.args[at])(target, builder, arguments[at]) for at in (0, 2)]
        width = builder.extract_value(arrays[0].shape, 1)
        rows = [
            builder.gep(array.data, [builder.mul(arguments[at], width)])
            for array, at in zip(arrays, (1, 3), strict=True)
        ]
        totals = [cgutils.alloca_once_value(builder, ir.Constant(total_type, None)) for _ in range(2)]
        with cgutils.for_range_slice(builder, word(0), width, word(2 * _LANES), word) as (start, _):
            for number, total in enumerate(totals):
                at = builder.add(start, word(number * _LANES))
                values = [_load_int16(builder, row, at) for row in rows]
                builder.store(builder.add(builder.load(total), _pair_products(builder, *values)), total)
        both = builder.add(builder.load(totals[0]), builder.load(totals[1]))
        name = f"llvm.vector.reduce.add.v{_LANES // 2}i32"
        return builder.call(_declared(builder, name, ir.FunctionType(lanes, [total_type])), [both])

    return types.int32(left, types.intp, right, types.intp), generate


@intrinsic
def four_dots(context: Any, left: Any, left_row: Any, right: Any, out: Any) -> Any:
    """`row_dot` of a row with the four rows of `right`, int16 (4, width), into int32 out (4,): the row is
    loaded and widened once."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, lanes = ir.IntType(64), ir.IntType(32)
        total_type = ir.VectorType(lanes, _LANES // 2)
        rows, others, results = (
            target.make_array(signature.args[at])(target, builder, arguments[at]) for at in (0, 2, 3)
        )
        width = builder.extract_value(rows.shape, 1)
        row = builder.gep(rows.data, [builder.mul(arguments[1], width)])
        lines = [builder.gep(others.data, [builder.mul(word(number), width)]) for number in range(4)]
        totals = [cgutils.alloca_once_value(builder, ir.Constant(total_type, None)) for _ in lines]
        with cgutils.for_range_slice(builder, word(0), width, word(_LANES), word) as (start, _):
            values = _load_int16(builder, row, start)
            for line, total in zip(lines, totals, strict=True):
                products = _pair_products(builder, values, _load_int16(builder, line, start))
                builder.store(builder.add(builder.load(total), products), total)
        name = f"llvm.vector.reduce.add.v{_LANES // 2}i32"
        summed = _declared(builder, name, ir.FunctionType(lanes, [total_type]))
        for number, total in enumerate(totals):
            place = builder.gep(results.data, [word(number)])
            builder.store(builder.call(summed, [builder.load(total)]), place)
        return target.get_dummy_value()

    return types.void(left, types.intp, right, out), generate


@intrinsic
def four_products(context: Any, left: Any, left_row: Any, right: Any, right_row: Any, out: Any) -> Any:
    """The inner products of a row of `left`, float32 (n, width), width a multiple of 32, with four rows of
    `right` from `right_row` on, into out (4,). As a loop each would be one chain of additions, each waiting
    for the one before; here there are eight."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, number = ir.IntType(64), ir.FloatType()
        lanes = ir.VectorType(number, 16)
        rows, others, results = (
            target.make_array(signature.args[at])(target, builder, arguments[at]) for at in (0, 2, 4)
        )
        width = builder.extract_value(rows.shape, 1)
        row = builder.gep(rows.data, [builder.mul(arguments[1], width)])
        first = builder.mul(arguments[3], width)
        lines = [
            builder.gep(others.data, [builder.add(first, builder.mul(word(at), width))]) for at in range(4)
        ]
        totals = [
            [cgutils.alloca_once_value(builder, ir.Constant(lanes, None)) for _ in range(2)] for _ in lines
        ]

        def load(line: Any, at: Any) -> Any:
            return builder.load(builder.bitcast(builder.gep(line, [at]), lanes.as_pointer()), align=4)

        with cgutils.for_range_slice(builder, word(0), width, word(32), word) as (start, _):
            for half in range(2):
                at = builder.add(start, word(16 * half))
                values = load(row, at)
                for line, halves in zip(lines, totals, strict=True):
                    product = builder.fmul(values, load(line, at), flags=("fast",))
                    summed = builder.fadd(builder.load(halves[half]), product, flags=("fast",))
                    builder.store(summed, halves[half])
        name = "llvm.vector.reduce.fadd.v16f32"
        reduced = _declared(builder, name, ir.FunctionType(number, [number, lanes]))
        for at, halves in enumerate(totals):
            both = builder.fadd(*map(builder.load, halves), flags=("fast",))
            total = builder.call(reduced, [ir.Constant(number, 0.0), both], fastmath=("reassoc",))
            builder.store(total, builder.gep(results.data, [word(at)]))
        return target.get_dummy_value()

    return types.void(left, types.intp, right, types.intp, out), generate


def _declared(builder: Any, name: str, kind: ir.FunctionType) -> Any:
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name=name)


def _load_int16(builder: Any, row: Any, at: Any) -> Any:
    """Elements [at, at + _LANES) of a row, as int16."""
    address = builder.gep(row, [at])
    element = ir.IntType(row.type.pointee.width)
    vector = ir.VectorType(element, _LANES)
    values = builder.load(builder.bitcast(address, vector.as_pointer()), align=1)
    return values if element.width == 16 else builder.sext(values, ir.VectorType(ir.IntType(16), _LANES))


def _pair_products(builder: Any, left: Any, right: Any) -> Any:
    """int32 sums of products of neighbouring int16 lanes: the pattern that LLVM knows as one instruction."""
    wide = ir.VectorType(ir.IntType(32), _LANES)
    products = builder.mul(builder.sext(left, wide), builder.sext(right, wide))
    half = ir.VectorType(ir.IntType(32), _LANES // 2)
    masks = [ir.Constant(half, list(range(start, _LANES, 2))) for start in (0, 1)]
    even, odd = (builder.shuffle_vector(products, products, mask) for mask in masks)
    return builder.add(even, odd)
