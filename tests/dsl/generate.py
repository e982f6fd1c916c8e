"""Random well-formed kernels, for Hypothesis: elementwise steps, reductions, dots and loops over windows."""

from hypothesis import strategies as st

import dsl
from dsl import cdiv, dot, exp, loop, maximum, pid, tanh, tile, where, zeros

STEPS = (
    "scale",
    "shift",
    "tanh",
    "exp",
    "rowmax",
    "colsum",
    "rowsum",
    "colmin",
    "mask",
    "gram",
    "parity",
    "prefix",
)


@st.composite
def recipes(draw):
    """(rows, columns, tile rows, steps, storage dtype)."""
    rows = draw(st.integers(1, 13))
    columns = draw(st.integers(1, 9))
    height = draw(st.integers(1, 6))
    steps = draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5))
    return rows, columns, height, tuple(steps), draw(st.sampled_from(("f32", "f16", "bf16")))


@dsl.kernel(grid=lambda x, height: cdiv(x.shape[0], height), out=lambda x: dsl.like(x, dtype="f32"))
def composed(x, y, o, *, height=4, steps=()):
    rows = tile(pid(0) * height, height)
    t = x[rows, :].f32
    for step in steps:
        t = apply(step, t, y, rows)
    o[rows, :] = t


def apply(step, t, y, rows):
    width = t.shape[1]
    match step:
        case "scale":
            return t * 0.5
        case "shift":
            return t + y[0, :]
        case "tanh":
            return tanh(t)
        case "exp":
            return exp(where(t < 1.0, t, 1.0))
        case "rowmax":
            return t - t.max(1)
        case "colsum":
            return t + 0.125 * where(rows.rows() < 5, t, 0.0).sum(0)
        case "colmin":
            return maximum(t, t.min(0) + 0.25)
        case "rowsum":
            return t - t.sum(1) * (1 / width)
        case "mask":
            return where(rows.rows() % 3 == 0, t, -t)
        case "gram":
            return dot(t, y[:, :], transpose_b=False) * 0.2 if y.shape[0] == width else t
        case "parity":
            return where(((rows.rows() ^ 5) & 1) == 0, t, t * 2)
    return loop(0, pid(0) + 1, lambda j, total: total + y[0, :] * (j * 0.25), t + zeros(t.shape))
