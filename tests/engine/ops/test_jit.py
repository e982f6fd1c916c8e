import warnings

import jax
import jax.numpy as jnp
import pytest

from engine.ops import jit


def test_a_compiled_function_computes_and_keeps_its_jit_options():
    double = jit.compile(lambda x, times: x * times, static_argnames="times")
    assert float(double(jnp.float32(3), times=2)) == 6
    assert double.lower(jnp.float32(3), times=2).compile() is not None


def test_the_scheduler_option_is_taken_on_a_cpu_and_left_off_elsewhere():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert jit.compiler_options() == (jit.CPU_OPTIONS if jax.default_backend() == "cpu" else {})


def test_an_unknown_option_falls_back_with_one_warning_that_says_so(monkeypatch):
    monkeypatch.setattr(jit, "CPU_OPTIONS", {"xla_cpu_no_such_option": "1"})
    jit._scheduler_option_works.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="xla_cpu_scheduler_type") as caught:
            assert float(jit.compile(lambda x: x + 1)(jnp.float32(1))) == 2
            jit.compile(lambda x: x + 2)
        assert len(caught) == 1
    finally:
        jit._scheduler_option_works.cache_clear()
