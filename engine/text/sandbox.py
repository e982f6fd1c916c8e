"""A jinja2 environment for templates that come from outside: no side effects, bounded work.

A chat template is code out of a checkpoint. jinja2's immutable sandbox keeps it from reaching
Python's internals; this module keeps it from looping or growing without end. Every loop turn,
macro call, output and string or list operation spends from one `Budget`; when that is empty the
rendering ends with `TemplateTooCostly`. Work is counted, not timed, so the verdict is repeatable.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

BUDGET = 20_000_000
"""Units of work for one rendering, roughly characters copied: about a second at worst."""
LONGEST = 2_000_000
"""Characters or items in any one value."""
_STEP = 128
_ITEM = 8
_BIGGEST_INT_BITS = 256
_LONG_WIDTH = re.compile(r"\d{5,}|\*|\{[^}]*\{")
_WIDTHS = {"center", "ljust", "rjust", "zfill", "expandtabs"}


class TemplateTooCostly(SecurityError):
    """The template wants more work or memory than a chat template may."""


class Budget:
    def __init__(self, units: int = BUDGET) -> None:
        self._left = units

    def spend(self, size: int) -> None:
        self._left -= size
        if size > LONGEST or self._left < 0:
            raise TemplateTooCostly("the template loops or grows without end")


_budget: ContextVar[Budget] = ContextVar("template_budget")


@contextmanager
def budgeted() -> Iterator[Budget]:
    """Gives the rendering inside the block a fresh budget; each thread has its own."""
    token = _budget.set(Budget())
    try:
        yield _budget.get()
    finally:
        _budget.reset(token)


def _spend(size: int) -> None:
    budget = _budget.get(None)
    if budget is not None:
        budget.spend(size)


def spend_made(value: object) -> None:
    """Pays for a value that was just made: its characters, or all nested items of a container.

    Containers that share parts count them each time, so `[x, x]` repeated cannot grow unseen.
    """
    _spend(len(value) if isinstance(value, str) else _items(value))


def spend_written(value: object) -> None:
    """Pays for a value that is about to be written out as text."""
    for leaf in _leaves(value):
        _spend(len(leaf) if isinstance(leaf, str) else _ITEM)


def _items(value: object) -> int:
    return sum(1 for _ in _leaves(value))


def _leaves(value: object) -> Iterator[object]:
    """Every item of nested lists and dicts; spends as it walks, so it ends."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting.extend((*item.keys(), *item.values()))
        elif isinstance(item, (list, tuple, set, frozenset)):
            waiting.extend(item)
        _spend(_ITEM)
        yield item


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """See the module docstring. Compile with `compile_bounded`, which puts the counters in."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, **options: Any) -> None:
        super().__init__(optimized=False, finalize=_counted_output, **options)
        self.filters |= {"join": _join, "string": _text}
        self.filters = {name: _counted_filter(name, function) for name, function in self.filters.items()}
        self.globals.pop("lipsum", None)

    def step(self, cost: int) -> str:
        """Called at the head of every loop and macro body."""
        _spend(cost)
        return ""

    def made(self, value: Any) -> Any:
        """Called around every list, tuple and dict literal."""
        spend_made(value)
        return value

    def joined(self, *parts: object) -> str:
        """The `~` operator."""
        return "".join(map(_text, parts))

    def compile_bounded(self, source: str) -> Any:
        return self.compile(_Counters().visit(self.parse(source)))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _check_operands(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def bounded(*args: Any, **kwargs: Any) -> str:
            _check_format(value.__self__)
            spend_written((*args, *kwargs.values()))
            return wrapped(*args, **kwargs)

        return bounded

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str) and name == "join":
            return _join(args[0] if args else (), owner)
        if isinstance(owner, str):
            _check_text_call(name, owner, args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        spend_made(result)
        return result


def _text(value: object) -> str:
    spend_written(value)
    return str(value)


def _join(items: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    parts = []
    for item in items:
        part = _text(item if attribute is None else _member(item, attribute))
        _spend(len(separator))
        parts.append(part)
    return separator.join(parts)


def _member(item: Any, name: str) -> Any:
    return item[name] if isinstance(item, Mapping) else ""


def _counted_output(value: Any) -> Any:
    """jinja2's `finalize`: what each `{{ }}` gives."""
    spend_written(value)
    return value


def _counted_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    leading = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        value, rest = (*args, "")[leading], args[leading + 1 :]
        _check_text_call(name, value if isinstance(value, str) else "", rest, kwargs)
        result = function(*args, **kwargs)
        _spend(_STEP)
        spend_made(result)
        return result

    return counted


def _check_operands(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str):
        _check_format(left)
        spend_written(right)
    elif operator == "+":
        spend_made(left)
        spend_made(right)
    elif operator == "**" and not (_small(left, _BIGGEST_INT_BITS) and _small(right, 6)):
        raise TemplateTooCostly("a power in the template is too large")
    elif operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(many, Sized) and isinstance(times, int):
                _spend((_items(many) + len(many)) * max(times, 0))
        if not (_small(left, _BIGGEST_INT_BITS) and _small(right, _BIGGEST_INT_BITS)):
            raise TemplateTooCostly("a product in the template is too large")


def _small(value: object, bits: int) -> bool:
    return not isinstance(value, int) or value.bit_length() <= bits


def _check_format(text: str) -> None:
    if _LONG_WIDTH.search(text):
        raise TemplateTooCostly("a format width in the template is too large")


def _check_text_call(name: str, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Bounds the result of a string method or filter before it is made."""
    values = (*args, *kwargs.values())
    largest = max((abs(value) for value in values if isinstance(value, int)), default=0)
    if largest > LONGEST:
        raise TemplateTooCostly(f"a number given to {name} in the template is too large")
    if name == "format":
        _check_format(text)
        spend_written(values)
    elif name in _WIDTHS:
        _spend(largest * (1 + text.count("\t")))
    elif name == "indent":
        wide = max((len(value) for value in values if isinstance(value, str)), default=0)
        _spend(len(text) + (1 + text.count("\n")) * max(largest, wide))
    elif name == "replace" and len(values) >= 2:
        old, new = str(values[0]), str(values[1])
        _spend(len(text) + (text.count(old) if old else len(text) + 1) * len(new))
    elif name in ("translate", "wordwrap", "slice", "batch"):
        _spend(len(text) + largest)


class _Counters(NodeTransformer):
    """Puts a call of `environment.step` at the head of each body that may run many times."""

    def _count(self, node: Any) -> Any:
        self.generic_visit(node)
        static = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        step = nodes.EnvironmentAttribute("step")
        call = nodes.Call(step, [nodes.Const(_STEP + static)], [], None, None)
        node.body.insert(0, nodes.ExprStmt(call, lineno=node.lineno))
        return node

    visit_For = visit_Macro = visit_CallBlock = visit_Block = _count

    def _measure(self, node: Any) -> nodes.Call:
        self.generic_visit(node)
        return nodes.Call(nodes.EnvironmentAttribute("made"), [node], [], None, None, lineno=node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Call:
        return self._measure(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Call:
        return self._measure(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        return self._measure(node) if node.ctx == "load" else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:
        self.generic_visit(node)
        return nodes.Call(
            nodes.EnvironmentAttribute("joined"), node.nodes, [], None, None, lineno=node.lineno
        )


class GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}`: a mark for training in some templates, plain text here."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
