"""What a kernel may not say: each error names this file and the very line, and what to write instead."""

import inspect

import jax.numpy as jnp
import pytest

import dsl
from dsl import KernelError, dot, exp, full, loop, pid, tile, where, zeros

X = jnp.ones((8, 6))


def truth(x, o):
    if x[0, :] < 1:  # here
        o[:, :] = x[:, :]


def both_conditions(x, o):
    ok = (pid(0) >= 0) and (pid(0) < 3)  # here
    o[:, :] = where(ok, x[:, :], 0)


def traced_size(x, o):
    t = x[tile(0, pid(0)), :]  # here
    o[:, :] = t


def shapes_apart(x, o):
    t = x[0:3, :] + x[0:4, :]  # here
    o[0:3, :] = t


def wrong_dot(x, o):
    o[:, :] = dot(x[:, :], x[:, :])  # here


def store_to_input(x, o):
    x[:, :] = o  # here


def read_of_output(x, o):
    o[:, :] = o[:, :] + x[:, :]  # here


def programs_collide(x, o):
    o[0:2, :] = x[0:2, :] + pid(0)  # here


def half_overlap(x, o):
    o[tile(pid(0), 2), :] = x[0:2, :]  # here


def stored_twice(x, o):
    o[tile(pid(0), 1), :] = x[0:1, :]
    o[tile(pid(0), 1), :] = x[1:2, :]  # here


def beyond_the_array(x, o):
    o[tile(pid(0) + 8, 1), :] = x[0:1, :]  # here


def wrong_value_shape(x, o):
    o[tile(pid(0), 1), :] = x[0:2, :]  # here


def three_windows(x, o):
    o[:, :] = x[:, :, :]  # here


def carry_changes_shape(x, o):
    t = loop(0, 3, lambda j, c: c + x[:, :], zeros((8, 1)))  # here
    o[pid(0), :] = t.sum(0)


def carry_changes_dtype(x, o):
    t = loop(0, 3, lambda j, c: c + 0.5, 0)  # here
    o[pid(0), :] = x[0, :] + t


def carries_differ_in_number(x, o):
    t = loop(0, 3, lambda j, c: (c[0],), (0, 1))  # here
    o[pid(0), :] = x[0, :] + t[0]


def float_bounds(x, o):
    t = loop(0, 8 / 2, lambda j, c: c, 0)  # here
    o[pid(0), :] = x[0, :] + t


def indexed_tile(x, o):
    t = x[:, :][0]  # here
    o[pid(0), :] = t


def gather(x, o):
    o[pid(0), :] = x[tile(0, 8).rows(), :]  # here


def numpy_function(x, o):
    o[pid(0), :] = jnp.exp(x[0, :])  # here


def sum_over_a_third_axis(x, o):
    o[pid(0), :] = x[:, :].sum(2)  # here


def float_division_floor(x, o):
    o[pid(0), :] = x[0, :] // 2.0  # here


def where_of_floats(x, o):
    o[pid(0), :] = where(x[0, :], 1.0, 2.0)  # here


def rank_one_zeros(x, o):
    o[pid(0), :] = zeros(6)  # here


def traced_fill(x, o):
    o[pid(0), :] = full((1, 6), pid(0))  # here


def missing_axis(x, o):
    o[pid(2), :] = x[0, :]  # here


def out_of_range_position(x, o):
    o[pid(0), :] = x[9, :]  # here


def python_range(x, o):
    for _ in range(pid(0)):  # here
        o[pid(0), :] = x[0, :]


def a_raw_array(x, o):
    o[pid(0), :] = x[0, :] + X[0]  # here


CASES = [
    value for value in list(globals().values()) if inspect.isfunction(value) and value.__module__ == __name__
]


@pytest.mark.parametrize("body", CASES, ids=lambda body: body.__name__)
def test_an_error_names_the_line_and_the_way_out(body):
    kernel = dsl.kernel(grid=4, out=lambda x: dsl.like(x))(body)
    lines, first = inspect.getsourcelines(body)
    marked = next(number for number, line in enumerate(lines, first) if "# here" in line)
    with pytest.raises(KernelError) as caught:
        kernel.ir(X)
    assert (caught.value.file, caught.value.line) == (__file__, marked), str(caught.value)
    assert str(caught.value).startswith(f"{__file__}:{marked}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).split(": ", 1)[1]) > 25


def test_a_kernel_that_stores_nothing_points_at_its_definition():
    @dsl.kernel(grid=1, out=lambda x: dsl.like(x))
    def nothing(x, o):
        exp(x[:, :])

    with pytest.raises(KernelError, match="stores nothing") as caught:
        nothing.ir(X)
    assert caught.value.file == __file__


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: k(X.astype(jnp.complex64)), "complex64"),
        (lambda k: k(X, X), "outputs"),
        (lambda k: k(X, size=3), "no keyword 'size'"),
        (lambda k: k(3), "not an array"),
        (lambda k: k(X, out=(dsl.like(X), dsl.like(X))), "out describes 2"),
        (lambda k: k(jnp.ones((0, 6))), "length >= 1"),
    ],
)
def test_a_bad_call_is_refused(call, message):
    @dsl.kernel(grid=1, out=lambda x: dsl.like(x))
    def copy(x, o):
        o[:, :] = x[:, :]

    with pytest.raises(KernelError, match=message):
        call(copy)


def test_the_language_outside_of_a_kernel():
    with pytest.raises(KernelError, match="only inside a kernel"):
        pid(0)
