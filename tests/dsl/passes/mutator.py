"""Breaks Python source on purpose, one place at a time: the mistakes that a rule of a pass could have.

Comparisons are turned and shifted, `not` is dropped, `and` and `or` change places or lose an operand, whole
numbers move by one, + becomes -, conditions always or never hold, and cases of a `match` are left out.
"""

import ast
import copy
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TURNED = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_SIGNS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult}


@dataclass(frozen=True)
class Mutant:
    """One mistake in a module: where, what it was, and what it is."""

    module: types.ModuleType
    line: int
    before: str
    after: str
    tree: ast.Module

    def __str__(self) -> str:
        return f"{self.module.__name__}:{self.line}: {self.before}  ->  {self.after}"

    def load(self) -> types.ModuleType:
        """The module with the mistake, beside the sound one."""
        broken = types.ModuleType(self.module.__name__)
        broken.__file__ = self.module.__file__
        exec(compile(self.tree, f"<mutant {self.module.__name__}>", "exec"), broken.__dict__)
        return broken


def mutants(module: types.ModuleType) -> list[Mutant]:
    """Every mistake that is planted in `module`, in the order of its lines."""
    tree = ast.parse(Path(module.__file__ or "").read_text())
    found = []
    skipped = {id(part) for node in ast.walk(tree) if _is_no_rule(node) for part in ast.walk(node)}
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in skipped:
            continue
        for change in _changes(node):
            broken = copy.deepcopy(tree)
            mine: Any = next(each for n, each in enumerate(ast.walk(broken)) if n == number)
            before = _shown(mine)
            change(mine)
            if _shown(mine) != before:
                ast.fix_missing_locations(broken)
                line = getattr(mine, "lineno", None) or _line_of(mine)
                found.append(Mutant(module, line, before, _shown(mine), broken))
    return sorted(found, key=lambda each: each.line)


def _is_no_rule(node: ast.AST) -> bool:
    """What checks or decorates the code itself: asserts, `strict=`, decorators' arguments."""
    return isinstance(node, ast.Assert) or (
        isinstance(node, ast.keyword) and node.arg in ("strict", "frozen")
    )


def _shown(node: ast.AST) -> str:
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        return f"if {ast.unparse(node.test)}"
    if isinstance(node, ast.Match):
        return " / ".join(f"case {ast.unparse(case.pattern)}" for case in node.cases)
    if isinstance(node, ast.match_case):
        guard = f" if {ast.unparse(node.guard)}" if node.guard else ""
        return f"case {ast.unparse(node.pattern)}{guard}"
    if isinstance(node, ast.comprehension):
        return " ".join(f"if {ast.unparse(test)}" for test in node.ifs)
    return ast.unparse(node)


def _line_of(node: ast.AST) -> int:
    return next((n.lineno for n in ast.walk(node) if hasattr(n, "lineno")), 0)


def _changes(node: ast.AST) -> Iterator[Callable[[Any], None]]:
    match node:
        case ast.Compare(ops=[op]):
            for other in _TURNED.get(type(op), ()):
                yield lambda n, other=other: setattr(n, "ops", [other()])
        case ast.UnaryOp(op=ast.Not()):
            yield (
                lambda n: (
                    setattr(n, "op", ast.UAdd())
                    or setattr(n, "operand", ast.Call(ast.Name("bool", ast.Load()), [n.operand], []))
                )
            )
        case ast.BoolOp(op=op, values=values):
            yield lambda n: setattr(n, "op", ast.Or() if isinstance(op, ast.And) else ast.And())
            for position in range(len(values)):
                neutral = isinstance(op, ast.And)
                yield lambda n, at=position, to=neutral: n.values.__setitem__(at, ast.Constant(to))
        case ast.Constant(value=bool()):
            yield lambda n: setattr(n, "value", not n.value)
        case ast.Constant(value=int()):
            yield lambda n: setattr(n, "value", n.value + 1)
        case ast.BinOp(op=op) if type(op) in _SIGNS:
            yield lambda n: setattr(n, "op", _SIGNS[type(op)]())
        case ast.If() | ast.IfExp():
            yield lambda n: setattr(n, "test", ast.Constant(True))
            yield lambda n: setattr(n, "test", ast.Constant(False))
        case ast.Match(cases=cases) if len(cases) > 1:
            for position in range(len(cases)):
                yield lambda n, at=position: n.cases.pop(at)
        case ast.match_case(guard=ast.expr()):
            yield lambda n: setattr(n, "guard", None)
        case ast.comprehension(ifs=[_, *_]):
            yield lambda n: n.ifs.clear()
