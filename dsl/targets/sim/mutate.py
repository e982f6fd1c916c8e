"""Breaks generated source on purpose, one place at a time, and says whether the simulator sees it.

A test that cannot fail proves nothing: every mutant here is a mistake that the emitter could make. All
mutants of a program are compiled together, each behind a number that is chosen when it runs.
"""

import ast
import dataclasses
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsl.ir.ops import Kernel
from dsl.ir.types import FLOATS
from dsl.lower.c.dialects import Dialect
from dsl.lower.c.emit import MAX_SLOTS, Program
from dsl.lower.c.layout import LANES
from dsl.runtime.selfcheck import random_array
from dsl.targets.sim.build import BuildError
from dsl.targets.sim.run import Caught, simulate

Array = NDArray[Any]
ORDERS = (0, 1, 2, 3, 4, 5)
"""Schedules that a mutant may hide from; both ways of placing buffers are among them."""

_OPERAND = r"(?:v\d+(?:\[\w+\]\[\w+\])?|\(?-?[\d.]+(?:e[+-]?\d+)?f\)?)"
_MASK = re.compile(r"(?<=t, )(\d+)(?=\))|(?<=ushort\()(\d+)(?=\))")
_BOUND = re.compile(r"(?<= < )(\d+)\b(?!\.)")
_LOWER = re.compile(r"(?<= >= )0\b(?!\.)")
_OWNER = re.compile(r"\b(?:lane|warp) == 0\b|\(lane & \d+\) == 0\b")
_KEPT = re.compile(r"(?<=, )\d+(?= - \()")
_LANES = re.compile(r"(?<=\(lane & )\d+(?=\) (?!== 0))|(?<=lane >> )\d")
_IN_GUARD = re.compile(r"[\w +*&>()]*< ")
_FRAGMENT = re.compile(r"\bb\[(\d)\](?=(?:, b\[\d\])?\);)")
_BINARY = re.compile(rf"(?<== )({_OPERAND}) ([-/]|<|>=) ({_OPERAND})(?=;)")
_CALL = re.compile(rf"\b(floor_div|floor_mod)\(({_OPERAND}), ({_OPERAND}|\d+)\)")
_WHERE = re.compile(rf"(?<== )({_OPERAND}) \? ({_OPERAND}) : ({_OPERAND})(?=;)")
_FIRST_PASS = re.compile(r"^( *)\{ const int next = \w+;\n.*?^\1\}\n", re.MULTILINE | re.DOTALL)
_SLOT = r"(?:lane|warp|\([\d ijlanewrp+*&>()]+\)) < "
_OPERATORS = {
    ast.Add: operator.add,
    ast.Mult: operator.mul,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
}
MOST_WARPS = 32
HARMLESS = {
    "folds a slot past the tile's end that holds what the fold ignores": re.compile(rf"if \({_SLOT}~"),
    "reads, within its array, for a slot past the tile's end": re.compile(
        rf"(?:= |&& ){_SLOT}~.* \? \w+_ref"
    ),
    "loads, within its arrays, a pass that is not there, for nobody": re.compile(r"^ *if \(v\d+ < ~\) \{"),
}
"""Wider bounds that may change nothing: what they do, and the line, with ~ for the bound."""


@dataclass(frozen=True)
class Mutant:
    """One mistake: what it is, the line of source as it was, and what stands in place of which text.

    Attributes:
        program: the source with this mistake alone.
        statement: True when the text is a whole statement, False for an expression.
    """

    what: str
    line: str
    start: int
    end: int
    text: str
    program: Program
    statement: bool = False


def mutants(program: Program, dialect: Dialect) -> list[Mutant]:
    """Barriers dropped, masks doubled, bounds widened, loops cut, owners forgotten, operands swapped.

    And of matrix units: bits of the lane moved in an address, a fragment taken twice. What loads a loop's
    first pass ahead is left alone: the emitter writes it as it does what loads the next ones.
    """
    source = program.source
    body = source.index(f" {program.entry}(")
    alone = [match.span() for match in _FIRST_PASS.finditer(source)]
    found = []
    for what, start, end, text in _changes(source, dialect):
        if start < body or any(first <= start < end_of for first, end_of in alone):
            continue
        first = source.rfind("\n", 0, start) + 1
        line = source[first : source.find("\n", start)].strip()
        broken = dataclasses.replace(program, source=source[:start] + text + source[end:])
        found.append(Mutant(what, line, start, end, text, broken, what == "barrier dropped"))
    return found


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
    for match in _OWNER.finditer(source):
        yield "owner forgotten", *match.span(), "true"
    for match in _KEPT.finditer(source):
        yield "bound widened", *match.span(), str(int(match[0]) + 1)
    for match in _LANES.finditer(source):
        if not _IN_GUARD.match(source, match.end()):  # many a guard holds, or not, whatever the lane
            yield "lane's bits moved", *match.span(), str(int(match[0]) + 1)
    for match in _FRAGMENT.finditer(source):
        yield "fragment taken twice", *match.span(), f"b[{int(match[1]) ^ 1}]"
    for match in _BINARY.finditer(source):
        yield "operands swapped", *match.span(), f"{match[3]} {match[2]} {match[1]}"
    for match in _CALL.finditer(source):
        yield "operands swapped", *match.span(), f"{match[1]}({match[3]}, {match[2]})"
    for match in _WHERE.finditer(source):
        yield "operands swapped", *match.span(), f"{match[1]} ? {match[3]} : {match[2]}"


def planted(program: Program, chosen: Sequence[Mutant]) -> list[tuple[Program, list[Mutant]]]:
    """Programs that hold all mutants, number 1, 2, ... of each list; more than one where places overlap."""
    rounds: list[list[Mutant]] = []
    for each in sorted(chosen, key=lambda mutant: mutant.start):
        free = next((found for found in rounds if found[-1].end <= each.start), None)
        if free is None:
            rounds.append([each])
        else:
            free.append(each)
    return [(dataclasses.replace(program, source=_joined(program.source, found)), found) for found in rounds]


def _joined(source: str, found: Sequence[Mutant]) -> str:
    for number, each in reversed(list(enumerate(found, 1))):
        before = source[each.start : each.end]
        if each.statement:
            text = f"if (sim::mutant != {number}) {{ {before} }}"
        else:
            text = f"(sim::mutant == {number} ? {each.text} : {before})"
        source = source[: each.start] + text + source[each.end :]
    return source


def survivors(
    kernel: Kernel,
    dialect: Dialect,
    program: Program,
    chosen: Sequence[Mutant],
    arrays: Sequence[Array],
    expected: Sequence[Array],
    tolerance: float = 2e-4,
) -> list[Mutant]:
    """Mutants that pass for right under `ORDERS`. Raises Caught when the program itself does not."""
    found = []
    for together, listed in planted(program, chosen) or [(program, [])]:
        wrong = verdict(kernel, dialect, together, arrays, expected, tolerance)
        if wrong is not None:
            raise Caught(f"the program without a mistake: {wrong}")
        for number, each in enumerate(listed, 1):
            if verdict(kernel, dialect, together, arrays, expected, tolerance, mutant=number) is None:
                found.append(each)
    return found


def verdict(
    kernel: Kernel,
    dialect: Dialect,
    program: Program,
    arrays: Sequence[Array],
    expected: Sequence[Array],
    tolerance: float = 2e-4,
    *,
    mutant: int = 0,
) -> str | None:
    """How a program is found wrong under `ORDERS`, or None when it passes for right."""
    for order in ORDERS:
        try:
            found = simulate(kernel, dialect, program, arrays, (order,), mutant=mutant)
        except (Caught, BuildError) as seen:
            return str(seen)
        for mine, theirs in zip(found, expected, strict=True):
            if not np.allclose(np.asarray(mine, np.float64), theirs, rtol=tolerance, atol=tolerance):
                return f"wrong numbers (schedule {order})"
    return None


def harmless(
    kernel: Kernel, dialect: Dialect, program: Program, mutant: Mutant, draws: Sequence[Sequence[Array]]
) -> str | None:
    """Why a mutant means the same as its program, or None when there is no reason to think so.

    Either a wider bound lets in a position that no slot of any thread has. Or it is one of `HARMLESS`, and
    on every draw of inputs and schedule it touches nothing outside of its arrays and gives the very bits of
    the program: if any output depended on the slot that it fills, it would not on all.
    """
    line_start = program.source.rfind("\n", 0, mutant.start) + 1
    line_end = program.source.find("\n", mutant.end)
    line = program.source[line_start : mutant.start] + "~" + program.source[mutant.end : line_end]
    reason = next((told for told, pattern in HARMLESS.items() if pattern.search(line)), None)
    if mutant.what != "bound widened":
        return None
    if _met_by_none(line[: line.index("~")], int(mutant.text) - 1):
        return "lets in a position that no slot has"
    if reason is None:
        return None
    ((together, _),) = planted(program, [mutant])
    for arrays in draws:
        for order in ORDERS:
            sound = simulate(kernel, dialect, together, arrays, (order,))
            try:
                found = simulate(kernel, dialect, together, arrays, (order,), mutant=1)
            except Caught:
                return None
            if any(a.tobytes() != b.tobytes() for a, b in zip(sound, found, strict=True)):
                return None
    return reason


def _met_by_none(before: str, bound: int) -> bool:
    """True when the position that `before` ends with, and " < ", is `bound` for no slot of any thread."""
    if not before.endswith(") < "):
        return False
    end, depth = len(before) - 4, 0
    for start in range(end, -1, -1):
        depth += (before[start] == ")") - (before[start] == "(")
        if depth == 0:
            break
    if not before[:start].endswith(("(", "&& ", "= ", ", ")):
        return False  # a part of the position
    position = before[start : end + 1]
    names = set(re.findall(r"[a-z_]\w*", position))
    slots = names - {"lane", "warp"}
    if not slots <= {"i", "j", "k"} or len(slots) > 1:
        return False
    lane, warp, slot = np.ogrid[:LANES, :MOST_WARPS, :MAX_SLOTS]
    values = {"lane": lane, "warp": warp} | dict.fromkeys(slots, slot)
    return not np.any(_value(ast.parse(position, mode="eval").body, values) == bound)


def _value(node: ast.expr, values: Mapping[str, Array]) -> Array:
    """What an expression of sums, products, shifts and masks is for all threads and slots."""
    match node:
        case ast.Constant(value=int(number)):
            return np.asarray(number)
        case ast.Name(id=name):
            return values[name]
        case ast.BinOp(left=left, op=op, right=right):
            found: Array = _OPERATORS[type(op)](_value(left, values), _value(right, values))
            return found
    raise ValueError(f"no position: {ast.unparse(node)}")


def draws(kernel: Kernel) -> list[list[Array]]:
    """Random inputs about zero, far below it and far above it."""
    found = []
    for seed, offset in enumerate((0.0, 0.0, -20.0, 20.0)):
        rng = np.random.default_rng(seed)
        arrays = [random_array(rng, ref) for ref in kernel.inputs]
        found.append(
            [
                (x + offset).astype(x.dtype) if ref.dtype in FLOATS else x
                for ref, x in zip(kernel.inputs, arrays, strict=True)
            ]
        )
    return found


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
    left = survivors(kernel, dialect, program, dropped, arrays, expected)
    return [number for number, each in enumerate(dropped) if each in left]
