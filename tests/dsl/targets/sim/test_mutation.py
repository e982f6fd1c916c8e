"""Every mistake planted in generated source is caught, and no emitted barrier is one too many."""

import dataclasses

import pytest

from dsl.kernels.attention import flash_attention
from dsl.kernels.softmax import softmax
from dsl.lower.c.dialects import CUDA, METAL
from dsl.lower.c.emit import emit
from dsl.targets.sim.mutate import mutants, needless_barriers, verdict
from tests.dsl.targets.sim.cases import CASES, normal, prepared

MUTATED = CASES | {
    # Far from zero, so that a zero from outside of the row would change the maximum's role.
    "softmax": (softmax, (normal(13, 37) - 300.0,), {"BM": 5}),
    # Neither causal nor with columns past the tile: there a wider bound changes no number at all.
    "flash_attention": (
        flash_attention,
        (normal(1, 2, 20, 8), normal(1, 2, 45, 8, seed=1), normal(1, 2, 45, 8, seed=2)),
        {"BM": 10, "BN": 32, "causal": False},
    ),
}
KINDS = {"barrier dropped", "shuffle mask doubled", "bound widened", "pass dropped", "operands swapped"}


def survivors(name, dialect, chosen):
    ir, arrays, expected = prepared(*MUTATED[name])
    tested = chosen(mutants(emit(ir, dialect), dialect))
    assert tested
    return [
        (each.what, each.line)
        for each in tested
        if verdict(ir, dialect, each.program, arrays, expected) is None
    ]


def first_of_each_kind(found):
    return list({each.what: each for each in found}.values())


@pytest.mark.parametrize("name", MUTATED)
def test_a_mistake_of_each_kind_is_caught(name):
    assert survivors(name, CUDA, first_of_each_kind) == []


@pytest.mark.soak
@pytest.mark.parametrize("dialect", (CUDA, METAL), ids=lambda d: d.name)
@pytest.mark.parametrize("name", MUTATED)
def test_every_mistake_is_caught(name, dialect):
    assert survivors(name, dialect, list) == []


def test_all_kinds_of_mistakes_are_planted():
    for dialect in (CUDA, METAL):
        programs = [emit(prepared(*case)[0], dialect) for case in MUTATED.values()]
        assert {each.what for program in programs for each in mutants(program, dialect)} == KINDS


@pytest.mark.parametrize("name", ["flash_attention", "matmul"])
def test_no_barrier_is_needless_and_one_more_is_found(name):
    ir, arrays, expected = prepared(*MUTATED[name])
    program = emit(ir, CUDA)
    assert needless_barriers(ir, CUDA, program, arrays, expected) == []
    at = program.source.index("for (int k")
    more = dataclasses.replace(
        program, source=program.source[:at] + CUDA.barrier + "\n    " + program.source[at:]
    )
    assert needless_barriers(ir, CUDA, more, arrays, expected) != []
