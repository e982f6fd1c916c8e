"""Emitters with one mistake each, and what the simulator says of the code that they write."""

import importlib
import sys
import types
from functools import lru_cache

import jax.numpy as jnp
import numpy as np

import dsl
from dsl.kernels.softmax import softmax
from dsl.lower import oracle
from dsl.lower.c import (
    dots,
    emit,
    expressions,
    layout,
    lines,
    matrix,
    names,
    placement,
    prefetch,
    reductions,
    shared,
    sums,
    vectors,
    windows,
)
from dsl.lower.c.dialects import CUDA, METAL
from dsl.targets.sim.build import BuildError
from dsl.targets.sim.run import Caught, simulate
from tests.dsl.generate import STEPS, Recipe
from tests.dsl.generate import specialised as of_recipe
from tests.dsl.kernels.catalogue import CASES, specialised
from tests.dsl.passes.mutator import mutants
from tests.dsl.targets.sim.cases import prepared
from tests.dsl.targets.sim.matrix_cases import KERNELS, SMALL, deep

MODULES = (
    *(layout, windows, shared, reductions, dots, matrix, sums, placement, prefetch),
    *(vectors, emit, expressions, lines, names),
)
PREFIX = "dsl.lower.c."
LIBRARY = (
    *(
        "softmax",
        "matmul",
        "layer_norm",
        "kv_append",
        "int4_matvec",
        "round_to_int8",
        "flash_attention of all",
    ),
    *("decode_attention windowed", "rope", "nearest"),
)


def load(mutant):
    """The `emit` of an emitter in which one module has the mutant's mistake, with dialects of its own."""
    saved = {name: found for name, found in sys.modules.items() if name.startswith(PREFIX)}
    package = sys.modules["dsl.lower.c"]
    try:
        for name in saved:
            del sys.modules[name]
        broken = types.ModuleType(mutant.module.__name__)
        broken.__file__ = mutant.module.__file__
        sys.modules[broken.__name__] = broken
        exec(compile(mutant.tree, f"<mutant of {broken.__name__}>", "exec"), broken.__dict__)
        own = importlib.import_module("dsl.lower.c.dialects")
        emitted = importlib.import_module("dsl.lower.c.emit").emit
        return lambda kernel, dialect: emitted(kernel, getattr(own, dialect.name.upper()))
    finally:
        for name in [name for name in sys.modules if name.startswith(PREFIX)]:
            del sys.modules[name]
        for name, found in saved.items():
            sys.modules[name] = found
            setattr(package, name.removeprefix(PREFIX), found)


@dsl.kernel(grid=1, out=lambda a, b: dsl.like(a, shape=(a.shape[0], b.shape[0])))
def product(a, b, o):
    o[:, :] = dsl.dot(a[:, :], b[:, :], transpose_b=True)


def deep_in_f32():
    """A dot whose inner axis goes through shared memory in chunks."""
    arrays = [np.random.default_rng(n).standard_normal((n, 333), np.float32) for n in (12, 40)]
    return product.ir(*arrays), arrays


def a_long_row():
    """A row along all warps, whose greatest element and sum they join."""
    return softmax.ir(np.zeros((2, 1536), np.float32), BM=1), [
        np.random.default_rng(0).standard_normal((2, 1536), np.float32)
    ]


@lru_cache(maxsize=1)
def corpus():
    """(kernel, dialect, arrays, the oracle's outputs, the sound source): all ops, ragged, several warps."""
    steps = list(STEPS)
    recipes = [
        Recipe(
            7, 37, 5, 20, (3, -2, 30), tuple(steps[n : n + 8]), "f16", "f32", "f32", "i8", "i8", "i4", True
        )
        for n in range(0, len(steps), 8)
    ]
    cases = [specialised(CASES[name], CASES[name].telling and CASES[name].telling()) for name in LIBRARY]
    cases.append(deep_in_f32())
    cases.append(a_long_row())
    found = [(CUDA, *case) for case in [*cases, *(of_recipe(recipe) for recipe in recipes)]]
    wide = [make(jnp.float16) for make in KERNELS.values()]
    wide += SMALL.values()
    wide += [(*deep(transpose_b), {}) for transpose_b in (False, True)]
    for each in wide:
        kernel, arrays, _ = prepared(*each)
        found += [(dialect, kernel, arrays) for dialect in (CUDA, METAL)]
    return [
        (kernel, dialect, arrays, oracle.run(kernel, *arrays), emit.emit(kernel, dialect).source)
        for dialect, kernel, arrays in found
    ]


def verdict(mutant):
    """How a mistake shows, "says the same" when no kernel's source changes, or None when it passes."""
    try:
        broken = load(mutant)
        changed = [
            (kernel, dialect, arrays, expected, program)
            for kernel, dialect, arrays, expected, source in corpus()
            if (program := broken(kernel, dialect)).source != source
        ]
    except Exception as error:
        return f"raises {type(error).__name__}"
    if not changed:
        return "says the same"
    for kernel, dialect, arrays, expected, program in changed:
        try:
            found = simulate(kernel, dialect, program, arrays, (0, 1))
        except (Caught, BuildError) as seen:
            return str(seen)
        for mine, theirs in zip(found, expected, strict=True):
            if not np.allclose(np.asarray(mine, np.float64), theirs, rtol=5e-3, atol=5e-3):
                return "wrong numbers"
    return None


def all_mutants():
    """Every mistake that the mutator of the passes' tests makes in the emitter's modules."""
    return [each for module in MODULES for each in mutants(module)]
