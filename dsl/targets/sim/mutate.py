"""Breaks generated source on purpose, one place at a time, and says whether the simulator sees it.

A test that cannot fail proves nothing: every mutant here is a mistake that the emitter could make.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsl.ir.ops import Kernel
from dsl.lower.c.dialects import Dialect
from dsl.lower.c.emit import Program
from dsl.targets.sim.build import BuildError
from dsl.targets.sim.run import Caught, simulate

Array = NDArray[Any]
ORDERS = (0, 1, 2, 3, 4, 5)
"""Schedules that a mutant may hide from; both ways of placing buffers are among them."""

_OPERAND = r"(?:v\d+(?:\[\w+\]\[\w+\])?|\(?-?[\d.]+(?:e[+-]?\d+)?f\)?)"
_MASK = re.compile(r"(?<=t, )(\d+)(?=\))|(?<=ushort\()(\d+)(?=\))")
_BOUND = re.compile(r"(?<= < )(\d+)\b")
_LOWER = re.compile(r"(?<= >= )0\b")
_BINARY = re.compile(rf"= ({_OPERAND}) ([-/]|<|>=) ({_OPERAND});")
_CALL = re.compile(rf"\b(floor_div|floor_mod)\(({_OPERAND}), ({_OPERAND}|\d+)\)")
_WHERE = re.compile(rf" \? ({_OPERAND}) : ({_OPERAND});")


@dataclass(frozen=True)
class Mutant:
    """A program with one mistake: what it is, and the line of source as it was."""

    what: str
    line: str
    program: Program


def mutants(program: Program, dialect: Dialect) -> list[Mutant]:
    """Barriers dropped, shuffle masks doubled, bounds widened, loops shortened, operands swapped."""
    body = program.source.index(f" {program.entry}(")
    found = []
    for what, start, end, text in _changes(program.source, dialect):
        if start >= body:
            found.append(_mutant(program, what, start, end, text))
    return found


def _mutant(program: Program, what: str, start: int, end: int, text: str) -> Mutant:
    source = program.source
    first = source.rfind("\n", 0, start) + 1
    line = source[first : source.find("\n", start)].strip()
    changed = source[:start] + text + source[end:]
    return Mutant(what, line, dataclasses.replace(program, source=changed))


def _changes(source: str, dialect: Dialect) -> Iterator[tuple[str, int, int, str]]:
    for match in re.finditer(re.escape(dialect.barrier), source):
        yield "barrier dropped", *match.span(), ""
    for match in _MASK.finditer(source):
        yield "shuffle mask doubled", *match.span(), str(2 * int(match[0]))
    for match in _BOUND.finditer(source):
        line = source[source.rfind("\n", 0, match.start()) : match.start()]
        if "for (int " in line:  # one pass more would only meet what the guards mask
            yield "pass dropped", *match.span(), str(int(match[0]) - 1)
        else:
            yield "bound widened", *match.span(), str(int(match[0]) + 1)
    for match in _LOWER.finditer(source):
        yield "bound widened", *match.span(), "-1"
    for match in _BINARY.finditer(source):
        if not match[3].isdigit():
            yield "operands swapped", *match.span(), f"= {match[3]} {match[2]} {match[1]};"
    for match in _CALL.finditer(source):
        yield "operands swapped", *match.span(), f"{match[1]}({match[3]}, {match[2]})"
    for match in _WHERE.finditer(source):
        yield "operands swapped", *match.span(), f" ? {match[2]} : {match[1]};"


def verdict(
    kernel: Kernel,
    dialect: Dialect,
    program: Program,
    arrays: Sequence[Array],
    expected: Sequence[Array],
    tolerance: float = 2e-4,
) -> str | None:
    """How a program is found wrong under `ORDERS`, or None when it passes for right."""
    for order in ORDERS:
        try:
            found = simulate(kernel, dialect, program, arrays, (order,))
        except (Caught, BuildError) as seen:
            return str(seen)
        for mine, theirs in zip(found, expected, strict=True):
            if not np.allclose(np.asarray(mine, np.float64), theirs, rtol=tolerance, atol=tolerance):
                return f"wrong numbers (schedule {order})"
    return None


def needless_barriers(
    kernel: Kernel,
    dialect: Dialect,
    program: Program,
    arrays: Sequence[Array],
    expected: Sequence[Array],
) -> list[int]:
    """Barriers, counted from 0, that no schedule misses when they are dropped.

    Races are found on every schedule, so a barrier is needed exactly when, on these arrays, some element
    of shared memory would be touched by two threads on its two sides, once as a write.
    """
    dropped = [each for each in mutants(program, dialect) if each.what == "barrier dropped"]
    return [
        number
        for number, each in enumerate(dropped)
        if verdict(kernel, dialect, each.program, arrays, expected) is None
    ]
