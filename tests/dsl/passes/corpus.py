"""Kernels as they are traced, before any pass: the library at the sizes of its tests, and random ones."""

from functools import lru_cache

import numpy as np
import pytest

from tests.dsl.kernels.catalogue import CASES, taken


def traced(function, refs, meta):
    """The kernel as traced, before `simplify`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dsl.lang.kernel.simplify", lambda kernel: kernel)
        return function._trace(refs, tuple(sorted(function.keywords(refs, None, meta).items())))


@lru_cache(maxsize=1)
def library():
    """(name, kernel as traced, arrays of its inputs) of each case of the catalogue."""
    found = []
    for name, case in CASES.items():
        function, given, meta = taken(case)
        found.append((name, traced(function, given.refs, meta), [np.asarray(x) for x in given.arrays]))
    return found
