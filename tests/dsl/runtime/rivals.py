"""Targets to tune among: each gives what XLA gives, but one sleeps first, one is wrong, one breaks."""

import time

import jax
import numpy as np

from dsl.lower.xla import lower
from dsl.runtime.targets import Resources


class Rival:
    """`after` maps the outputs, on the host."""

    platforms = ("cpu",)

    def __init__(self, name, after=lambda outputs: outputs, reason=None):
        self.name = name
        self.after = after
        self.reason = reason

    def refuses(self, kernel):
        return self.reason

    def build(self, kernel):
        run = lower(kernel)

        def call(*arrays):
            found = run(*arrays)
            shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in found)
            return jax.pure_callback(lambda *x: tuple(self.after([np.asarray(y) for y in x])), shapes, *found)

        return call

    def source(self, kernel):
        return self.name


class Native(Rival):
    """No slower than XLA, without a callback."""

    def build(self, kernel):
        return lower(kernel)


class Spilling(Native):
    """Its compiler ran out of registers for tiles of more than 4 rows."""

    def resources(self, kernel):
        rows = -(-kernel.refs[0].shape[0] // kernel.grid[0])
        return (Resources("sm_80", 128, 255, 64 if rows > 4 else 0, 0),)


def slow(outputs):
    time.sleep(0.02)
    return outputs


def wrong(outputs):
    return [-x for x in outputs]


def broken(outputs):
    raise ArithmeticError("it broke when it ran")
