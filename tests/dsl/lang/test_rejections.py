"""What a kernel may not say: each error names this file and the very line, and what to write instead."""

import inspect
import math

import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import KernelError, atomic_add, dot, exp, full, loop, pid, tile, where, zeros

X = jnp.ones((8, 6))


@dsl.kernel(grid=1, out=lambda x: dsl.like(x))
def copied(x, o):
    o[:, :] = x[:, :]


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


def a_function_of_numpy(x, o):
    o[pid(0), :] = np.exp(x[0, :])  # here


def an_array_of_numpy(x, o):
    o[pid(0), :] = np.ones(6, np.float32) * x[0, :]  # here


def a_jax_scalar(x, o):
    o[pid(0), :] = x[0, :] * jnp.float32(2)  # here


def a_jax_function_of_a_ref(x, o):
    o[pid(0), :] = jnp.exp(x)  # here


def chained_comparison(x, o):
    o[pid(0), :] = where(0 < x[0, :] < 1, 1.0, 0.0)  # here


def builtin_sum(x, o):
    o[pid(0), :] = sum(x[0, :])  # here


def builtin_round(x, o):
    o[pid(0), :] = round(x[0, :])  # here


def of_the_math_module(x, o):
    o[pid(0), 0] = math.exp(x[0, 0])  # here


def python_int(x, o):
    o[pid(0), :] = x[int(pid(0)), :]  # here


def length_of_a_tile(x, o):
    o[pid(0), :] = x[0, :] / len(x[0, :])  # here


def assignment_to_a_tile(x, o):
    t = x[0, :]
    t[0] = 1.0  # here
    o[pid(0), :] = t


def arithmetic_of_refs(x, o):
    o[pid(0), :] = x * 2  # here


def transposed_ref(x, o):
    o[pid(0), :] = x.T[0, :]  # here


def loop_over_a_ref(x, o):
    for row in x:  # here
        o[pid(0), :] = row


def length_of_a_ref(x, o):
    o[pid(0), :] = x[len(x) - 1, :]  # here


def truth_of_a_ref(x, o):
    o[pid(0), :] = x[0, :] if x else 0.0  # here


def exponential_of_a_ref(x, o):
    o[pid(0), :] = exp(x)  # here


def dot_of_refs(x, o):
    o[:, :] = dot(x, x)  # here


def arithmetic_of_windows(x, o):
    o[pid(0), :] = x[tile(pid(0), 1) + 1, :]  # here


def comparison_of_windows(x, o):
    r = tile(pid(0), 1)
    o[r, :] = where(r < 3, x[r, :], 0)  # here


def window_in_a_window(x, o):
    o[pid(0), :] = x[tile(tile(0, 1), 1), :]  # here


def method_mean(x, o):
    o[pid(0), :] = x[:, :].mean(0)  # here


def method_exp(x, o):
    o[pid(0), :] = x[0, :].exp()  # here


def attribute_with_a_typo(x, o):
    o[pid(0), :] = x[0, :].f64  # here


def transposed_tile(x, o):
    o[:, :] = x[:, :].T  # here


def sum_of_no_axis(x, o):
    o[pid(0), :] = x[:, :].sum()  # here


def sum_of_a_scalar(x, o):
    o[pid(0), :] = x[0, 0].sum(0)  # here


def sum_of_truths(x, o):
    o[pid(0), :] = where((x[:, :] > 0).sum(0) > x[0, :], 1.0, 0.0).boolean.i32.f16.sum(3)  # here


def matmul_operator(x, o):
    o[:, :] = x[:, :] @ x[:, :]  # here


def matmul_with_a_number(x, o):
    o[:, :] = 2 @ x[:, :]  # here


def shift_to_the_left(x, o):
    o[pid(0), :] = x[0, :].i32 << 2  # here


def shift_of_a_number(x, o):
    o[pid(0), :] = 1 << x[0, :].i32  # here


def quotient_and_remainder(x, o):
    o[pid(0), :] = divmod(x[0, :].i32, 2)[0]  # here


def square_root_by_power(x, o):
    o[pid(0), :] = x[0, :] ** 0.5  # here


def power_of_two(x, o):
    o[pid(0), :] = 2 ** x[0, :]  # here


def bits_of_floats(x, o):
    o[pid(0), :] = x[0, :] & 1  # here


def popcount_of_floats(x, o):
    o[pid(0), :] = dsl.popcount(x[0, :])  # here


def numpy_dtype(x, o):
    o[pid(0), :] = x[0, :].astype(jnp.float32)  # here


def formatted(x, o):
    o[pid(0), :] = float(f"{x[0, 0]:.3f}")  # here


def a_large_integer(x, o):
    o[pid(0), :] = x[0, :].i32 + 2**40  # here


def a_complex_number(x, o):
    o[pid(0), :] = x[0, :] * 1j  # here


def a_stored_none(x, o):
    o[pid(0), :] = None  # here


def a_float_size(x, o):
    o[pid(0), :] = x[tile(0, 8 / 2), :].sum(0)  # here


def a_size_of_zero(x, o):
    o[pid(0), :] = x[tile(0, 0), :].sum(0)  # here


def a_float_start(x, o):
    o[pid(0), :] = x[tile(pid(0) / 2, 2), :].sum(0)  # here


def a_slice_with_a_step(x, o):
    o[pid(0), :] = x[0:8:2, :].sum(0)  # here


def a_slice_at_data(x, o):
    o[pid(0), :] = x[pid(0) : pid(0) + 2, :].sum(0)  # here


def a_list_as_index(x, o):
    o[pid(0), :] = x[[0, 1], :].sum(0)  # here


def a_mask_as_index(x, o):
    o[pid(0), :] = x[x.column[:, 0] > 0, :].sum(0)  # here


def an_index_too_many(x, o):
    o[pid(0), :, 0] = x[0, :]  # here


def a_tile_for_one_element(x, o):
    o[pid(0), 0] = x[0, :]  # here


def a_traced_filler(x, o):
    o[pid(0), :] = x.load((0, slice(None)), other=pid(0))  # here


def no_filler(x, o):
    o[pid(0), :] = x.load((0, slice(None)), other=None)  # here


def a_tile_of_three_axes(x, o):
    o[pid(0), :] = zeros((1, 2, 3))  # here


def a_tile_of_an_unknown_dtype(x, o):
    o[pid(0), :] = zeros((1, 6), "f16")  # here


def a_tile_of_an_array(x, o):
    o[pid(0), :] = full((1, 6), X[0])  # here


def a_traced_axis(x, o):
    o[pid(pid(0)), :] = x[0, :]  # here


def no_axis_of_the_grid(x, o):
    o[pid(), :] = x[0, :]  # here


def where_of_two(x, o):
    o[pid(0), :] = where(x[0, :] > 0, 1.0)  # here


def atomic_add_to_an_input(x, o):
    atomic_add(x, (0, slice(None)), x[0, :])  # here


def atomic_add_to_a_tile(x, o):
    atomic_add(x[:, :], 0, 1.0)  # here


def a_body_of_one_argument(x, o):
    o[pid(0), :] = loop(0, 3, lambda carry: carry, x[0, :])  # here


def a_body_that_is_none(x, o):
    o[pid(0), :] = loop(0, 3, x[0, :], x[0, :])  # here


def a_body_without_return(x, o):
    def body(j, carry):
        carry + 1

    o[pid(0), :] = loop(0, 3, body, x[0, :])  # here


def a_body_that_returns_one_of_two(x, o):
    o[pid(0), :] = loop(0, 3, lambda j, c: c[0], (x[0, :], 1))[0]  # here


def a_body_that_returns_a_tuple(x, o):
    o[pid(0), :] = loop(0, 3, lambda j, c: (c, c), x[0, :])  # here


def nested_carries(x, o):
    o[pid(0), :] = loop(0, 3, lambda j, c: c, ((x[0, :], x[1, :]), 0))[0][0]  # here


def a_traced_float_bound(x, o):
    o[pid(0), :] = loop(0, x[0, 0], lambda j, c: c, x[0, :])  # here


def a_traced_number_of_passes(x, o):
    o[pid(0), :] = loop(0, 3, lambda j, c: c, x[0, :], max_trip=pid(0))  # here


def a_negative_number_of_passes(x, o):
    o[pid(0), :] = loop(0, 3, lambda j, c: c, x[0, :], max_trip=-1)  # here


def a_value_kept_from_a_loop(x, o):
    kept = []
    loop(0, 3, lambda j, c: kept.append(c * 2) or c, x[0, :])
    o[pid(0), :] = kept[0]  # here


def too_many_axes_of_a_shape(x, o):
    o[pid(0), :] = x[0, :] * x.shape[2]  # here


def a_dot_of_integers_and_floats(x, o):
    o[pid(0), :] = dot(x[0:1, :], x[0, 0])  # here


def a_kernel_in_a_kernel(x, o):
    o[pid(0), :] = copied(x)  # here


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


CALLS = [
    (lambda: copied(X.astype(jnp.complex64)), "complex64 have no storage dtype in the DSL; cast to float32"),
    (lambda: copied(np.ones((8, 6))), "float64 have no storage dtype"),
    (lambda: copied(np.ones((8, 6), np.int64)), "int64 have no storage dtype"),
    (lambda: copied(X > 0), "bool have no storage dtype"),
    (lambda: copied(X, X), "its last Refs are outputs"),
    (lambda: copied(), "out needs x, and the call gives only no array"),
    (lambda: copied(X, size=3), "no keyword 'size'"),
    (lambda: copied(3), "int is not an array; pass jnp.asarray"),
    (lambda: copied(jnp.float32(3)), r"x has shape \(\)"),
    (lambda: copied(jnp.ones((0, 6))), "length >= 1"),
    (lambda: copied(jnp.ones(6)), "x has 1 axes and the index has 2"),
    (lambda: copied(X, out=(dsl.like(X), dsl.like(X))), "out describes 2 arrays for the 1 Refs left, o"),
    (lambda: copied(X, out=jnp.zeros((8, 6))), "out= takes dsl.like"),
    (lambda: copied(X, out=dsl.like(X, dtype="f64")), "an output is one of f32"),
    (lambda: copied(X, out=dsl.like(X, shape=8)), "shape is a tuple of Python ints, not 8"),
    (lambda: copied(X, out=dsl.like(X, shape=(8, -6))), r"o has shape \(8, -6\)"),
    (lambda: copied(X, out=dsl.like(packed(jnp.uint8))), "an output is one of f32.* not 'u4'"),
    (lambda: copied(packed(jnp.int8)), "Packed holds uint8 data"),
    (lambda: copied(packed(jnp.uint8, 8), out=dsl.like(X)), "last axis is a multiple of 32"),
    (lambda: copied.source(X), "the target's name first"),
    (lambda: traced(lambda x, o: None, out=None).ir(X), "needs out="),
    (lambda: traced(lambda x, o: x[:, :]).ir(X), "returns a value; a kernel stores"),
    (lambda: traced(lambda x, o: None, grid=0).ir(X), "one Python int >= 1 for each axis"),
    (lambda: traced(lambda x, o: None, grid=8 / 2).ir(X), "one Python int >= 1 for each axis"),
    (lambda: traced(lambda x, o: None, grid=()).ir(X), "one Python int >= 1 for each axis"),
    (lambda: traced(lambda x, o: None, grid=lambda y: 4).ir(X), "grid names 'y', which is no Ref or keyword"),
    (lambda: traced(lambda x, o: None, grid=lambda x: x.shape[2]).ir(X), "grid: an argument has fewer axes"),
    (lambda: traced(lambda x, o: None, out=lambda y: y).ir(X), "out names 'y'"),
    (lambda: traced(lambda x, o, BM=8: None), "BM has a default, so it is no Ref"),
    (lambda: traced(cube).ir(jnp.ones((2, 3, 4))), "the index leaves 3 windows and a tile has two axes"),
    (lambda: traced(only_by_keyword).ir(X), "needs the keyword BM, which has no default"),
    (lambda: traced(lambda *refs: None), "name each Ref and keyword"),
    (lambda: traced(lambda self, x, o: None), "not a method"),
    (lambda: traced(with_keyword).ir(X, BM=[1]), "static and hashable"),
    (lambda: traced(with_keyword).ir(X, BM=X), "static and hashable"),
    (lambda: dsl.kernel(lambda x, o: None), "needs a grid"),
    (lambda: dsl.kernel(out=lambda x: dsl.like(x)), "needs a grid"),
    (lambda: traced(f16_sums).ir(X, out=dsl.like(X, dtype="f16")), "takes an f32 or i32 Ref, and o is f16"),
    (
        lambda: traced(stored_floats).ir(X, out=dsl.like(X, dtype="i32")),
        "integers and the value is f32",
    ),
]


def cube(x, o):
    o[:, :, :] = x[:, :, :]


def packed(dtype, size=16):
    return dsl.Packed(jnp.ones((8, size), dtype), "u4")


def traced(body, *, grid=1, out=lambda x: dsl.like(x)):
    return dsl.kernel(grid=grid, out=out)(body)


def only_by_keyword(x, o, *, BM):
    o[:, :] = x[:, :]


def with_keyword(x, o, *, BM=8):
    o[:, :] = x[:, :]


def f16_sums(x, o):
    atomic_add(o, (0, slice(None)), x[0, :])


def stored_floats(x, o):
    o[:, :] = x[:, :]


@pytest.mark.parametrize(("call", "message"), CALLS, ids=[message for _, message in CALLS])
def test_a_bad_call_is_refused(call, message):
    with pytest.raises(KernelError, match=message) as caught:
        call()
    assert caught.value.file == __file__ and caught.value.line


def test_a_mistake_that_is_no_business_of_the_language_stays_a_python_error():
    with pytest.raises(NameError):
        traced(lambda x, o: missing[0]).ir(X)  # noqa: F821
    with pytest.raises(IndexError, match="list index"):
        traced(lambda x, o: [][0]).ir(X)
    with pytest.raises(TypeError, match="NoneType"):
        traced(lambda x, o: None + 1).ir(X)


def test_values_say_what_they_are_and_have_no_more_than_that():
    def looked_at(x, o):
        assert not hasattr(x, "T") and not hasattr(x[0, :], "mean")
        assert repr(x) == "Ref(x: f32[8, 6] in)" and f"{x[0, 0]}".startswith("Expr(%")
        o[:, :] = x[:, :] + (64 >> x[0, :].i32)

    assert dsl.kernel(grid=[1], out=lambda x: dsl.like(x))(looked_at)(X)[0, 0] == 33


def test_the_language_outside_of_a_kernel():
    with pytest.raises(KernelError, match="only inside a kernel"):
        pid(0)
