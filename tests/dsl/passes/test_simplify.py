"""Before and after of each pass on the text form, and a proof by execution that results stay."""

import numpy as np
import pytest
from hypothesis import given, settings

from dsl.ir.text import print_kernel
from dsl.ir.verify import verify
from dsl.lower import oracle
from dsl.passes.cost import cost
from dsl.passes.pipeline import simplify
from tests.dsl.generate import arrays, recipes, various
from tests.dsl.passes.corpus import traced
from tests.dsl.passes.texts import COSTS, PASSES, REWRITES


@pytest.mark.parametrize("name", REWRITES)
def test_a_pass_rewrites_the_text_and_keeps_the_result(name):
    each = REWRITES[name]
    one = PASSES[each.one]
    verify(each.before)
    changed = one(each.before)
    verify(changed)
    assert print_kernel(changed) == print_kernel(each.after)
    x = np.random.default_rng(0).standard_normal((8, 4))
    for n in ([0, 0], [1, 2], [-3, 7]):
        arrays = x, np.array(n, np.int32)
        np.testing.assert_array_equal(oracle.run(changed, *arrays)[0], oracle.run(each.before, *arrays)[0])


@settings(max_examples=15, deadline=None)
@given(recipes())
def test_simplified_kernels_compute_the_same(recipe):
    args, outputs = arrays(recipe)
    drawn = various.prepare(args, outputs, {"recipe": recipe})
    raw = traced(various, drawn.refs, {"recipe": recipe})
    done = simplify(raw)
    verify(done)
    assert simplify(done) == done
    inputs = [np.asarray(x) for x in drawn.arrays]
    for mine, theirs in zip(oracle.run(done, *inputs), oracle.run(raw, *inputs), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", COSTS)
def test_cost_counts_bytes_and_flops(name):
    kernel, expected = COSTS[name]
    found = cost(kernel)
    assert (*vars(found).values(), found.flops, found.intensity) == expected
