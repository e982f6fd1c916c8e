"""Random kernels on every target that runs here: all agree with the float64 oracle."""

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dsl.lower import oracle
from dsl.runtime.targets import target
from tests.dsl.generate import STEPS, Recipe, recipes, specialised

TARGETS = ("xla", "pallas", "cpu", "sim:cuda", "sim:metal")
ROUNDED = {"f32": 3e-4, "f16": 1e-2, "bf16": 6e-2}
"""Tolerance where that dtype is the narrowest on the way of floats."""


def tolerance(recipe):
    dtypes = [recipe.out]
    if any("narrow" in step for step in recipe.steps):
        dtypes.append(recipe.narrow)
    return max(ROUNDED[dtype] for dtype in dtypes)


def agree(recipe, seed, names=TARGETS):
    kernel, given = specialised(recipe, seed)
    expected = oracle.run(kernel, *given)
    for name in names:
        assert target(name).refuses(kernel) is None, name
        found = jax.jit(target(name).build(kernel))(*given)
        for ref, mine, theirs in zip(kernel.outputs, found, expected, strict=True):
            told = f"{ref.name} on {name} of {recipe}"
            if ref.value_dtype == "i32":
                np.testing.assert_array_equal(mine, theirs, told)
            else:
                within = tolerance(recipe) if ref.name in ("o", "kept") else 1e-6
                mine = np.asarray(mine, np.float64)
                np.testing.assert_allclose(mine, theirs, rtol=within, atol=within, err_msg=told)


def every_step(width, **changed):
    """A recipe of all steps at once: one compilation a target."""
    sizes = {"rows": 7, "columns": 37, "height": 4, "width": width, "at": (3, -2, 30)}
    dtypes = {"loaded": "f16", "narrow": "f32", "out": "f32", "stored": "i8", "bytes": "i8", "nibbles": "i4"}
    return Recipe(**sizes | dtypes | {"extra": True} | changed)


@pytest.mark.parametrize("width", [20, pytest.param(0, marks=pytest.mark.soak)])
def test_every_step_agrees(width):
    """In groups, since errors grow from step to step."""
    steps = list(STEPS)
    for first in range(0, len(steps), 10):
        chosen = tuple(steps[first : first + 10])
        agree(every_step(width, steps=chosen, narrow="f16"), first)


@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
@given(recipes(), st.integers(0, 99))
def test_random_kernels_agree(recipe, seed):
    agree(recipe, seed)


@pytest.mark.soak
@settings(max_examples=250, deadline=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
@given(recipes(), st.integers(0, 99))
def test_many_random_kernels_agree(recipe, seed):
    agree(recipe, seed)
