"""Random well-formed kernels that use the whole language, for a comparison of all targets.

`recipes()` draws a `Recipe`; `various` is the kernel that follows it, on the arrays of `arrays`. A kernel
carries a float tile t and an integer tile m from step to step. Whatever floats jump at (rounding, truncation,
comparison) is given exact numbers only, so that targets may differ by rounding and nothing else.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import dsl
from dsl import (
    atomic_add,
    cdiv,
    dot,
    erf,
    exp,
    log,
    loop,
    maximum,
    minimum,
    pid,
    rsqrt,
    sqrt,
    tanh,
    tile,
    where,
    zeros,
)

FLOATS = {"f32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16}
BYTES = {"u8": np.uint8, "i8": np.int8}


@dataclass(frozen=True)
class Recipe:
    """Sizes, dtypes and steps of one kernel.

    Attributes:
        rows, columns: of the arrays; height, width: of the tile; a width of 0 means all columns.
        at: the integers that are data: a number of passes, a row and a column, each perhaps out of range.
        narrow: the dtype of dots; `stored` that of the integer output; `extra` a second float output is
            written by a loop of stores.
    """

    rows: int
    columns: int
    height: int
    width: int
    at: tuple[int, int, int]
    steps: tuple[str, ...]
    loaded: str
    narrow: str
    out: str
    stored: str
    bytes: str
    nibbles: str
    extra: bool


@st.composite
def recipes(draw):
    columns = draw(st.integers(1, 40))
    narrow_tile = st.integers(1, max(1, columns - 1))
    return Recipe(
        rows=draw(st.integers(1, 13)),
        columns=columns,
        height=draw(st.integers(1, 9)),
        width=draw(st.one_of(st.just(0), narrow_tile)),
        at=draw(st.tuples(st.integers(-1, 5), st.integers(-4, 15), st.integers(-2, 45))),
        steps=tuple(draw(st.lists(st.sampled_from(list(STEPS)), min_size=2, max_size=7))),
        loaded=draw(st.sampled_from(list(FLOATS))),
        narrow=draw(st.sampled_from(list(FLOATS))),
        out=draw(st.sampled_from(list(FLOATS))),
        stored=draw(st.sampled_from(("i32", "i8", "u8"))),
        bytes=draw(st.sampled_from(list(BYTES))),
        nibbles=draw(st.sampled_from(("u4", "i4"))),
        extra=draw(st.booleans()),
    )


def arrays(recipe, seed=0):
    """(arguments, outputs) of `various`."""
    rng = np.random.default_rng(seed)
    shape = recipe.rows, recipe.columns
    x = jnp.asarray(rng.standard_normal(shape), FLOATS[recipe.loaded])
    y = jnp.asarray(rng.standard_normal((recipe.columns, recipe.columns)), jnp.float32)
    n = jnp.asarray(rng.integers(-9, 10, shape), jnp.int32)
    small = jnp.asarray(rng.integers(-128, 128, shape).astype(BYTES[recipe.bytes]))
    packed = dsl.Packed(jnp.asarray(rng.integers(0, 256, (recipe.rows, 32), dtype=np.uint8)), recipe.nibbles)
    kept = jnp.asarray(rng.standard_normal((recipe.rows + 3, recipe.columns)), jnp.float32)
    outputs = (
        dsl.like(x, dtype=recipe.out),
        dsl.like(n, dtype=recipe.stored),
        dsl.like(n, shape=(2, recipe.columns)),
        dsl.update(kept),
        dsl.like(y, shape=shape),
    )
    return (x, y, n, small, packed, jnp.asarray(recipe.at, jnp.int32)), outputs


def specialised(recipe, seed=0):
    """(kernel, the arrays of its inputs) of a recipe."""
    args, outputs = arrays(recipe, seed)
    given = various.prepare(args, outputs, {"recipe": recipe})
    kernel = various.specialise(given.refs, None, {"recipe": recipe})
    return kernel, [np.asarray(x) for x in given.arrays]


def _grid(x, recipe):
    return cdiv(x.shape[0], recipe.height), cdiv(x.shape[1], recipe.width or x.shape[1])


@dsl.kernel(grid=_grid)
def various(x, y, n, small, packed, at, o, whole, counts, kept, extra, *, recipe):
    rows = tile(pid(0) * recipe.height, recipe.height)
    columns = tile(pid(1) * (recipe.width or x.shape[1]), recipe.width or x.shape[1])
    env = Env(x, y, n, small, packed, at, rows, columns, recipe)
    t, m = x[rows, columns].f32, n[rows, columns]
    for step in recipe.steps:
        t, m = STEPS[step](env, t, m)
    o[rows, columns] = t.astype(recipe.out)
    whole[rows, columns] = m
    real = (rows.rows() < x.shape[0]) & (columns.cols() < x.shape[1])
    atomic_add(counts, (0, columns), where(real, m & 255, 0).sum(0))
    atomic_add(counts, (at[1], columns), where(real, 1, 0).max(0))
    kept[tile(pid(0) * recipe.height + 2, recipe.height), columns] = where(real, t, -1.0)
    if recipe.extra:
        loop(0, recipe.height, lambda j, _: stored(env, extra, j), ())


def stored(env, extra, j):
    extra[env.rows.start + j, env.columns] = env.x[env.rows.start + j, env.columns].f32 * 2.0 + j


@dataclass(frozen=True)
class Env:
    """What steps may read."""

    x: dsl.Ref
    y: dsl.Ref
    n: dsl.Ref
    small: dsl.Ref
    packed: dsl.Ref
    at: dsl.Ref
    rows: dsl.Tile
    columns: dsl.Tile
    recipe: Recipe

    def square(self):
        """A window of y, as wide and as high as the tile is wide."""
        return self.y[self.columns, self.columns]


def swapped(env, t, m):
    def step(j, carry):
        a, b, c = carry
        return b, a, c * 0.5 + a * 0.25

    a, b, c = loop(0, 3, step, (t, t * 0.5 + 1.0, t))
    return a * 0.5 + b * 0.25 + c, m


def nested(env, t, m):
    def outer(i, total):
        return loop(i, 3, lambda j, inner: inner + env.y[j, env.columns] * 0.125, total)

    return loop(0, pid(0) + 1, outer, t), m


def until_data(env, t, m):
    return loop(0, env.at[0], lambda j, total: total + env.y[j, env.columns] * 0.25, t), m + 1


def until_data_at_most(env, t, m):
    def step(j, carry):
        return carry[0] + 0.5 * env.y[j, env.columns], carry[1] + j

    return loop(env.at[0] - 3, env.at[0] + 1, step, (t, m), max_trip=3)


def before(env, shape):
    """A window of x that begins up to two rows and a column too early, but not outside altogether."""
    rows = tile(env.rows.start - min(2, shape[0] - 1), shape[0])
    return env.x.load((rows, tile(-min(1, shape[1] - 1), shape[1])), other=1.5).f32


def of_dots(env, t, m, *, transpose_b, narrow):
    a, b = (minimum(maximum(v, -4.0), 4.0) for v in (t, env.square()))
    if narrow:
        a, b = a.astype(env.recipe.narrow), b.astype(env.recipe.narrow)
    return dot(a, b, transpose_b=transpose_b) * 0.1, m


STEPS = {
    "scale": lambda env, t, m: (t * 0.5 - 0.25, m),
    "shift": lambda env, t, m: (t + env.y[0, env.columns], m),
    "column": lambda env, t, m: (t + env.x.column[env.rows, 0].f32, m),
    "tanh": lambda env, t, m: (tanh(t), m),
    "erf": lambda env, t, m: (erf(t) - t * 0.5, m),
    "exp": lambda env, t, m: (exp(minimum(t, 1.0)), m),
    "roots": lambda env, t, m: (sqrt(abs(t) + 0.5) + rsqrt(t * t + 0.5) + log(abs(t) + 1.0), m),
    "divide": lambda env, t, m: (t / (abs(t) + 1.0), m - 3),
    "rowmax": lambda env, t, m: (t - t.max(1), m - m.max(1)),
    "rowmin": lambda env, t, m: (t - t.min(1) * 0.5, minimum(m, m.min(1) + 5)),
    "rowsum": lambda env, t, m: (t - t.sum(1) * (1 / t.shape[1]), m + m.sum(1)),
    "colmax": lambda env, t, m: (t - t.max(0), m - m.max(0)),
    "colmin": lambda env, t, m: (maximum(t, t.min(0) + 0.25), m + m.min(0)),
    "colsum": lambda env, t, m: (t + t.sum(0) * 0.125, m + m.sum(0)),
    "both sums": lambda env, t, m: (t + t.sum(0).sum(1) * 0.03125, m - m.sum(1).sum(0)),
    "dot": lambda env, t, m: of_dots(env, t, m, transpose_b=False, narrow=False),
    "dot transposed": lambda env, t, m: of_dots(env, t, m, transpose_b=True, narrow=False),
    "narrow dot": lambda env, t, m: of_dots(env, t, m, transpose_b=False, narrow=True),
    "narrow dot transposed": lambda env, t, m: of_dots(env, t, m, transpose_b=True, narrow=True),
    "swapped carries": swapped,
    "nested loops": nested,
    "loop until data": until_data,
    "loop until data, at most": until_data_at_most,
    "scalar at data": lambda env, t, m: (t + env.y[env.at[1], env.at[2]], m * env.at[1]),
    "window at data": lambda env, t, m: (
        t + env.x.load((tile(env.at[1], t.shape[0]), tile(env.at[2], t.shape[1])), other=0.5).f32,
        m + env.n.load((tile(env.rows.start + env.at[1], t.shape[0]), env.columns), other=-7),
    ),
    "window before the array": lambda env, t, m: (t + before(env, t.shape), m),
    "mask": lambda env, t, m: (where((env.rows.rows() % 3 == 0) | (env.columns.cols() >= 4), t, -t), m),
    "logic": lambda env, t, m: (
        where(((m > 2) & ~(m == 5)) ^ (m <= -4) | (m != m), t, t * 0.5),
        where(m < 0, -m, m),
    ),
    "truths": lambda env, t, m: (t + (m >= 0), m + (m > 1) - (m % 2 == 0)),
    "to floats": lambda env, t, m: (t + (m % 64).f32 * 0.03125, m),
    "truncate": lambda env, t, m: (t, m + ((m % 64).f32 * 0.75 - 20.0).i32),
    "round": lambda env, t, m: (t + dsl.round_((m % 16).f32 * 0.5) * 0.125, m),
    "wrap": lambda env, t, m: (t, m * 1_000_003 + 2_000_000_000),
    "floor": lambda env, t, m: (t, m // 7 - m % 5 + m // -3),
    "floor by data": lambda env, t, m: (t, m // (env.n[env.rows, env.columns] % 4 + 1) + m % -6),
    "bits": lambda env, t, m: (t, ((m & 0x5555) | (m >> 3)) ^ ~m),
    "popcount": lambda env, t, m: (t, dsl.popcount(m) - abs(m % 100)),
    "bytes": lambda env, t, m: (t, m + env.small[env.rows, env.columns]),
    "nibbles": lambda env, t, m: (t, m - env.packed[env.rows, env.columns]),
    "whole groups": lambda env, t, m: (t + (env.packed[env.rows, 32:64].f32 * 0.0625).sum(1), m),
    "positions": lambda env, t, m: (t, m + env.rows.rows() * 3 - env.columns.cols()),
    "fill": lambda env, t, m: (maximum(t, zeros(t.shape) - 2.0), minimum(m, 99)),
}
