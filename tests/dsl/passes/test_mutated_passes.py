"""Passes broken on purpose: each mistake shows in a result, in the verifier, or in a text of rewrites.txt."""

import signal
from contextlib import contextmanager

import numpy as np
import pytest

from dsl import DslError
from dsl.ir.verify import verify
from dsl.lower import oracle
from dsl.passes import cost, cse, dce, fold, hoist, known, pipeline
from dsl.passes.pipeline import simplify
from tests.dsl.passes.corpus import library
from tests.dsl.passes.mutator import mutants
from tests.dsl.passes.texts import COSTS, PASSES, REWRITES

MODULES = {"fold": fold, "known": known, "cse": cse, "hoist": hoist, "dce": dce}
EQUIVALENT = {
    "dsl.passes.cse: 1  ->  2": "the id -1 stands for any that no value has",
    "dsl.passes.pipeline: 8  ->  9": "no kernel of the corpus needs so many rounds",
    "dsl.passes.pipeline: if kernel == before  ->  if False": "all rounds are made, for the same kernel",
}
"""Mistakes that are none, and why; a test holds that each of them is still there."""
ENDLESS = 5
"""Seconds after which a broken pass is taken for one that does not end."""


class Endless(Exception):
    pass


@contextmanager
def ended():
    def stop(*_):
        raise Endless

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(ENDLESS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Judge:
    """What a pass must make of each kernel, by execution and by text."""

    def __init__(self, name):
        self.name = name
        self.one = PASSES[name]
        self.texts = [each for each in REWRITES.values() if each.one == name]
        self.kernels = [(kernel, self.one(kernel), arrays) for _, kernel, arrays in library()]
        self.results = {}

    def expected(self, kernel, arrays):
        if kernel not in self.results:
            self.results[kernel] = oracle.run(kernel, *arrays)
        return self.results[kernel]

    def verdict(self, one):
        """How a broken pass shows, or None."""
        try:
            with ended():
                return self._verdict(one)
        except Endless:
            return "does not end"
        except Exception as error:
            return f"raises {type(error).__name__}"

    def _verdict(self, one):
        for each in self.texts:
            if str(one(each.before)) != str(each.after):
                return "text"
        for kernel, sound, arrays in self.kernels:
            found = one(kernel)
            if found == sound:
                continue
            try:
                verify(found)
            except DslError as error:
                return f"verifier: {error}"
            for mine, theirs in zip(oracle.run(found, *arrays), self.expected(kernel, arrays), strict=True):
                if not np.allclose(mine, theirs, rtol=1e-9, atol=1e-9, equal_nan=True):
                    return "result"
        return None


def shown(name, judge, function):
    """(mutants, those that nothing shows) of a module."""
    found = mutants(MODULES.get(name) or {"cost": cost, "pipeline": pipeline}[name])
    left = []
    for each in found:
        broken = getattr(each.load(), function)
        if judge(broken) is None:
            left.append(f"{each.module.__name__}: {each.before}  ->  {each.after}")
    return found, left


@pytest.mark.parametrize("name", MODULES)
def test_every_mistake_in_a_pass_shows(name):
    found, left = shown(name, Judge(name).verdict, PASSES[name].__name__)
    assert len(found) > 10
    expected = [told for told in EQUIVALENT if told.startswith(f"dsl.passes.{name}:")]
    assert left == expected


def simplified_alike(broken):
    """The pipeline as a whole: results stay, and what it leaves is what the passes leave alone."""
    for _, kernel, arrays in library():
        try:
            found = broken(kernel)
            verify(found)
        except Exception as error:
            return str(error)
        if simplify(found) != found:
            return "not simple"
        for mine, theirs in zip(oracle.run(found, *arrays), oracle.run(kernel, *arrays), strict=True):
            if not np.allclose(mine, theirs, rtol=1e-9, atol=1e-9, equal_nan=True):
                return "result"
    return None


def counted_alike(broken):
    for kernel, expected in COSTS.values():
        try:
            found = broken(kernel)
        except Exception as error:
            return str(error)
        if (found.loaded, found.stored, found.unique, found.dot_flops, found.other_flops) != expected[:5]:
            return "count"
        if (found.bounded, found.flops, found.intensity) != expected[5:]:
            return "count"
    return None


@pytest.mark.parametrize(
    ("name", "judge", "function"),
    [("pipeline", simplified_alike, "simplify"), ("cost", counted_alike, "cost")],
)
def test_every_mistake_in_the_pipeline_and_in_the_cost_shows(name, judge, function):
    assert judge({"simplify": simplify, "cost": cost.cost}[function]) is None
    _, left = shown(name, judge, function)
    assert left == [told for told in EQUIVALENT if told.startswith(f"dsl.passes.{name}:")]
