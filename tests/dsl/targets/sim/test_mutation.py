"""Every kernel of the library in both dialects: it is right, and every mistake planted in it is caught."""

import dataclasses
import random

import jax.numpy as jnp
import numpy as np
import pytest

from dsl.lower import oracle
from dsl.lower.c.dialects import CUDA, METAL
from dsl.lower.c.emit import emit
from dsl.targets.sim.mutate import draws, harmless, mutants, needless_barriers, planted, survivors
from dsl.targets.sim.run import simulate
from tests.dsl.kernels.catalogue import CASES, specialised
from tests.dsl.kernels.errors import TOLERANCE as LIBRARY
from tests.dsl.kernels.errors import note, worst
from tests.dsl.targets.sim.cases import prepared
from tests.dsl.targets.sim.matrix_cases import KERNELS, TOLERANCE

KINDS = {
    "barrier dropped",
    "shuffle mask doubled",
    "bound widened",
    "pass dropped",
    "owner forgotten",
    "operands swapped",
}
SAMPLE = 6
"""Mutants a kernel and dialect that `make test` plants; `make soak` plants all."""

all_kernels = pytest.mark.parametrize("name", CASES)
both_dialects = pytest.mark.parametrize("dialect", (CUDA, METAL), ids=lambda d: d.name)


def emitted(name, dialect):
    """(IR, program, input arrays, the oracle's outputs)."""
    case = CASES[name]
    ir, arrays = specialised(case, case.telling and case.telling())
    return ir, emit(ir, dialect), arrays, oracle.run(ir, *arrays)


def on_unit(name, dialect):
    """`emitted` of a kernel of f16 in the layout of the dialect's matrix unit."""
    ir, arrays, expected = prepared(*KERNELS[name](jnp.float16))
    program = emit(ir, dialect)
    assert dialect.unit.name in program.layout
    return ir, program, arrays, expected


def settled(ir, dialect, program, arrays, expected, tested, tolerance):
    """What of the tested mutants nothing shows and no argument makes harmless."""
    left = survivors(ir, dialect, program, tested, arrays, expected, tolerance)
    reasons = [harmless(ir, dialect, program, each, draws(ir)) for each in left]
    return [(each.what, each.line) for each, reason in zip(left, reasons, strict=True) if reason is None]


def missed(name, dialect, chosen):
    """What of the chosen mutants nothing shows, for a kernel of f32 that is found right itself."""
    ir, program, arrays, expected = emitted(name, dialect)
    tested = chosen(mutants(program, dialect))
    sound = simulate(ir, dialect, planted(program, tested)[0][0], arrays)
    assert note(name, f"sim:{dialect.name}", "f32", worst(sound, expected)) < LIBRARY["f32"]
    return settled(ir, dialect, program, arrays, expected, tested, 2e-4)


def missed_on_unit(name, dialect, chosen):
    ir, program, arrays, expected = on_unit(name, dialect)
    tested = chosen(mutants(program, dialect))
    return settled(ir, dialect, program, arrays, expected, tested, TOLERANCE[jnp.float16])


@both_dialects
@all_kernels
def test_a_kernel_is_right_and_some_mistakes_in_it_are_caught(name, dialect):
    def some(found):
        return random.Random(f"{name} {dialect.name}").sample(found, min(SAMPLE, len(found)))

    assert missed(name, dialect, some) == []


@pytest.mark.soak
@both_dialects
@all_kernels
def test_every_mistake_is_caught(name, dialect):
    assert missed(name, dialect, list) == []


@both_dialects
@pytest.mark.parametrize("name", KERNELS)
def test_some_mistakes_on_a_matrix_unit_are_caught(name, dialect):
    def some(found):
        return random.Random(f"{name} {dialect.name}").sample(found, min(SAMPLE, len(found)))

    assert missed_on_unit(name, dialect, some) == []


@pytest.mark.soak
@both_dialects
@pytest.mark.parametrize("name", KERNELS)
def test_every_mistake_on_a_matrix_unit_is_caught(name, dialect):
    assert missed_on_unit(name, dialect, list) == []


@both_dialects
def test_mistakes_of_matrix_units_are_planted(dialect):
    names = ("matmul", "decode_attention", "matmul of odd tiles")
    found = {each.what for name in names for each in mutants(on_unit(name, dialect)[1], dialect)}
    own = {"lane's bits moved"} | ({"fragment taken twice"} if dialect is CUDA else set())
    assert own | {"barrier dropped", "bound widened"} <= found <= own | KINDS


@both_dialects
def test_all_kinds_of_mistakes_are_planted(dialect):
    names = ("nearest", "matmul", "decode_attention windowed")
    assert {each.what for name in names for each in mutants(emitted(name, dialect)[1], dialect)} == KINDS


@pytest.mark.parametrize("name", ["flash_attention", "matmul"])
def test_no_barrier_is_needless_and_one_more_is_found(name):
    ir, program, arrays, expected = emitted(name, CUDA)
    assert needless_barriers(ir, CUDA, program, arrays, expected) == []
    at = program.source.index("for (int k")
    more = dataclasses.replace(
        program, source=program.source[:at] + CUDA.barrier + "\n    " + program.source[at:]
    )
    assert needless_barriers(ir, CUDA, more, arrays, expected) != []


def test_a_wider_bound_that_changes_a_bit_is_not_taken_for_harmless():
    """Of rows far below zero, a zero past the end is the greatest element; of others it is not."""
    ir, program, arrays, expected = emitted("softmax", CUDA)
    wide = next(each for each in mutants(program, CUDA) if "fmaxf(t, v" in each.line and each.text == "38")
    near = [arrays[0] + np.float32(300)]
    assert survivors(ir, CUDA, program, [wide], near, oracle.run(ir, *near)) == [wide]
    assert survivors(ir, CUDA, program, [wide], arrays, expected) == []
    assert harmless(ir, CUDA, program, wide, [near]) is not None
    assert harmless(ir, CUDA, program, wide, draws(ir)) is None
