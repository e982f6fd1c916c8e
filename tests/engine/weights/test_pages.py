"""Weights in large pages: the same numbers, where the kernel may join pages, for as long as they are used."""

import gc
import mmap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.ops.quant import quantize
from engine.weights import pages
from engine.weights.pages import PAGE, REGION, LargePages

ON_LINUX = hasattr(mmap, "MADV_HUGEPAGE")


def advised(address: int) -> bool:
    """Whether the mapping that holds an address is one for which large pages were asked (flag "hg")."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first:
            low, high = (int(end, 16) for end in first.split("-"))
            inside = low <= address < high
        elif inside and first == "VmFlags:":
            return "hg" in line.split()
    return False


@pytest.mark.skipif(not ON_LINUX, reason="large pages are asked for under Linux alone")
def test_large_arrays_lie_where_large_pages_were_asked_for():
    array = jnp.arange(100_000, dtype=jnp.float32)
    held = LargePages().hold(array)
    assert advised(held.unsafe_buffer_pointer())
    np.testing.assert_array_equal(held, array)


def test_quantised_weights_keep_their_numbers_and_shapes_across_regions():
    holder = LargePages()
    rng = np.random.default_rng(0)
    for _ in range(3):
        weights = quantize(rng.standard_normal((3000, 4096)).astype(np.float32), "int4")
        held = jax.tree.map(holder.hold, weights)
        jax.tree.map(np.testing.assert_array_equal, held, weights)
        assert held.in_features == weights.in_features


def test_an_array_larger_than_a_region_gets_one_of_its_own():
    array = jnp.ones(REGION // 4 + PAGE, jnp.float32)
    np.testing.assert_array_equal(LargePages().hold(array), array)


def test_memory_outlives_the_holder():
    held = [LargePages().hold(jnp.full(50_000, n, jnp.int32)) for n in range(20)]
    gc.collect()
    for n, array in enumerate(held):
        assert (np.asarray(array) == n).all()


def test_small_arrays_stay_where_they_are():
    small = jnp.ones(16)
    assert LargePages().hold(small) is small


def test_arrays_stay_where_the_kernel_has_no_large_pages(monkeypatch):
    monkeypatch.setattr(pages, "_region", lambda size: None)
    array = jnp.ones(100_000)
    assert LargePages().hold(array) is array
