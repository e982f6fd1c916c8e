"""How far each target is from the float64 oracle, on the cases of the catalogue.

With TARSIA_DSL_ERRORS=file the tests add a line to that file for each kernel, target and dtype that they
compare; `python -m tests.dsl.kernels.errors file` prints them as a table.
"""

import json
import os
import sys
from functools import lru_cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dsl.lower import oracle
from tests.dsl.kernels.catalogue import CASES, specialised

DTYPES = {"f32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16}
TOLERANCE = {"f32": 3e-5, "f16": 2e-3, "bf16": 1.6e-2}
"""Of a target in a storage dtype; f16 and bf16 outputs are rounded to 11 and 8 bits."""

COLUMNS = ["plain", "xla", "pallas", "cpu", "cuda", "sim:cuda", "sim:metal"]
"""Of the table; "plain" is the jnp expression, which no kernel has a part in."""


def arguments(name, dtype="f32"):
    """The arguments of a case, its f32 ones as `dtype`."""
    return [x.astype(DTYPES[dtype]) if x.dtype == jnp.float32 else x for x in CASES[name].args()]


@lru_cache(maxsize=256)
def expected(name, dtype="f32"):
    """The oracle's outputs for a case: float64, not rounded."""
    ir, arrays = specialised(CASES[name], arguments(name, dtype))
    return oracle.run(ir, *arrays)


def worst(found, wanted):
    """The greatest |found - wanted| / (1 + |wanted|) of all elements of all outputs."""
    greatest = 0.0
    for mine, theirs in zip(jax.tree.leaves(found), wanted, strict=True):
        assert mine.shape == theirs.shape
        mine, theirs = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
        assert np.isfinite(mine).all()
        greatest = max(greatest, float((np.abs(mine - theirs) / (1 + np.abs(theirs))).max()))
    return greatest


def error(name, target, dtype="f32"):
    """The worst error of a target in a case, noted where TARSIA_DSL_ERRORS says."""
    run = jax.jit(partial(CASES[name].kernel, backend=target))
    return note(name, target, dtype, worst(run(*arguments(name, dtype)), expected(name, dtype)))


def note(name, target, dtype, found):
    if path := os.environ.get("TARSIA_DSL_ERRORS"):
        with Path(path).open("a") as file:
            file.write(json.dumps([name, target, dtype, found]) + "\n")
    return found


def table(lines):
    """Markdown: a row for each kernel and dtype, a column for each target."""
    found = {(name, dtype, target): error for name, target, dtype, error in map(json.loads, lines)}
    targets = sorted({target for _, _, target in found}, key=COLUMNS.index)
    rows = [f"| kernel | dtype | {' | '.join(targets)} |", "|---|---|" + "---|" * len(targets)]
    keys = {(list(CASES).index(name), list(DTYPES).index(dtype)) for name, dtype, _ in found}
    for name, dtype in ((list(CASES)[n], list(DTYPES)[d]) for n, d in sorted(keys)):
        cells = [f"{found[name, dtype, t]:.1e}" if (name, dtype, t) in found else "" for t in targets]
        rows.append(f"| {name} | {dtype} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text().splitlines()))
