"""The intermediate representation: SSA over scalars and rank-2 tiles.

A `Kernel` is a name, its `RefType`s, a grid and a body of ops. Everything is a frozen dataclass;
a pass returns a new kernel. This page is all that a target or a pass needs to know.

**Values** (`types.Value(id, dtype, shape)`). `shape` is `()` for a scalar or `(R, C)` for a tile; a
column is `(R, 1)`, a row `(1, C)`. `dtype` is f32, i32, bool, or f16 / bf16. The last two are only
carried: `load` and `cast` make them, `cast`, `dot` and `store` take them; arithmetic is f32, i32
and bool. i32 wraps. Ids are unique in a kernel and, after `ops.renumber`, count definitions in
textual order (every pass and the parser return renumbered kernels, so equal kernels compare equal).

**Refs** (`types.RefType(name, dtype, shape, role)`). Row-major arrays of rank >= 1 in storage dtypes
f32 f16 bf16 i8 u8 i32, and i4 / u4 (signed, unsigned; inputs only). `in` is only read, `out` only
written (an element that no program writes is 0: see `access.covers`), `inout` is only written but
starts as the caller's array. i8, u8, i4 and u4 load as i32. A nibble Ref has its logical shape; the
bytes are packed along the last axis (a multiple of 32) in groups of 32: byte j of a group holds
element j in its low half and element j + 16 in its high half, so element c of the axis is in byte
`c // 32 * 16 + c % 16` at bit `c // 16 % 2 * 4`: the order of GGUF's Q4_0 and of `engine.ops.quant`.

**Windows.** `load`, `store` and `atomic_add` have one entry of `index` per axis of the Ref: `At(start)`
a scalar position, or `Span(start, size, tile_axis)` elements `start .. start + size` of that axis,
laid along `tile_axis` (0 rows, 1 columns) of the tile. At most one Span per tile axis; an absent
tile axis has length 1; no Span at all is a scalar. `size` is static, `start` is an i32 scalar. There
is no mask operand: **every axis is guarded** by the Ref's shape; what is out of range loads as `other`
and is not stored. `affine.Ranges.window_inside(ref, entry, axis)` says when no guard is needed. A
stored value broadcasts to its window, and is converted only between i32 and i8 / u8 (low byte kept).

**Ops** (`ops.py`), fields in order:

    Const(result, value)                    scalar; bool, int or float by result.dtype
    Full(result, value)                     tile of one constant
    Pid(result, axis)                       i32 scalar: the program's coordinate on a grid axis
    Iota(result, start, axis)               i32 (R,1) or (1,C): start + 0, 1, 2, ...
    Load(result, ref, index, other)         other: int or float, as the result's dtype
    Store(ref, index, value)                windows of one Ref never overlap (verified)
    AtomicAdd(ref, index, value)            f32 or i32 Refs of role out / inout; windows may overlap
    Unary(result, kind, operand)            f32: exp log tanh rsqrt sqrt erf round(half to even);
                                            f32 or i32: abs; i32: popcount; bool: not
    Binary(result, kind, left, right)       f32 or i32: add sub mul max min; f32: div;
                                            i32: idiv mod (floor, as Python) shr (arithmetic);
                                            i32 or bool: and or xor; -> bool: ge lt eq of f32 or i32
    Where(result, condition, left, right)   condition bool
    Cast(result, operand)                   f32 -> i32 truncates; to bool: != 0
    Reduce(result, kind, operand, axis)     sum max min of f32 or i32; keeps the axis with length 1
    Dot(result, left, right, transpose_b)   (M,K) @ (K,N), or (M,K) @ (N,K)^T; f32 accumulation;
                                            both f32, both f16 or both bf16
    Loop(finals, induction, lo, hi, carries, init, body, yields, max_trip)

Binary, Where and Store broadcast scalars and length-1 axes implicitly; operands otherwise agree in
dtype. Division by integer zero, and which of a NaN and a number max and min give, are not defined.

**Loops.** `for induction in lo .. hi` (i32 scalars, step 1): `carries` begin as `init`, become `yields`
after each pass over `body`, and are `finals` at the end (all alike in dtype and shape; none is fine).
Values from outside may be used inside; only `finals` leave. Where the author gave `max_trip`,
there are min(hi - lo, max_trip) passes. `affine.Ranges(kernel).trip(op)` is the
static bound, or None when the bounds are data.

**Grid.** Any number of axes, each >= 1; programs are independent and unordered; `pid` 0 is outermost.

Use: `verify.verify(kernel)`, `text.print_kernel / parse_kernel`, `ops.walk`, `op.operands`,
`op.results`, `op.map_values(f)`, `affine.Ranges`, and `match op: case Binary(kind="add", ...)`.
"""
