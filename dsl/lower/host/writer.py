"""The text of one version of a program as it grows: names, indentation, arrays and loops over elements.

What the emitters of single ops (`loads`, `stores`, `reduces`, `dots`) share.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dsl.ir.affine import Ranges
from dsl.ir.ops import Index, Kernel, Load, Op
from dsl.ir.types import Value
from dsl.lower.host import names
from dsl.lower.host.nest import LANES, Nest
from dsl.lower.host.uses import Uses
from dsl.lower.host.windows import Window

ON_STACK = 8192
"""Bytes up to which a tile is a local array."""

Trusted = frozenset[tuple[str, Index, int]]


@dataclass(frozen=True)
class Base:
    """A window and the name of the pointer to its first element."""

    window: Window
    pointer: str


Known = tuple[dict[int, str], dict[int, Op], dict[int, Base], set[int], set[int]]


class Writer:
    """Lines of C++ and where values live.

    Attributes: `refs` maps Refs to their pointers; `arrays` a value's id to the array or scalar that holds
    it; `lazy` the ids of deferred ops to the op; `bases` loads to where they read. Values in `hidden` are not
    computed on their own, and loads in `in_place` never get an array: see `running`. Axes in `trusted` need
    no guard in this version; `scratch` counts the bytes of tiles that are not on the stack.
    """

    def __init__(self, kernel: Kernel, facts: Ranges, trusted: Trusted, refs: dict[str, str]) -> None:
        self.kernel = kernel
        self.facts = facts
        self.trusted = trusted
        self.refs = refs
        self.uses = Uses(kernel)
        self.arrays: dict[int, str] = {}
        self.lazy: dict[int, Op] = {}
        self.bases: dict[int, Base] = {}
        self.hidden: set[int] = set()
        self.in_place: set[int] = set()
        self.scratch = 0
        self.lines: list[str] = []
        self.depth = 1
        self.counter = 0

    def known(self) -> "Known":
        """What is known of values so far, to emit a second version of the code that follows."""
        return dict(self.arrays), dict(self.lazy), dict(self.bases), set(self.hidden), set(self.in_place)

    def restore(self, known: "Known") -> None:
        self.arrays, self.lazy, self.bases, self.hidden, self.in_place = known

    def say(self, line: str) -> None:
        self.lines.append(line if line.startswith("#") else "  " * self.depth + line)

    def say_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.say(line)

    @contextmanager
    def braces(self, head: str) -> Iterator[None]:
        self.say(f"{head} {{".lstrip())
        self.depth += 1
        yield
        self.depth -= 1
        self.say("}")

    def nest(self) -> Nest:
        return Nest(self.arrays, self.lazy, lambda op: self._based(op))

    def _based(self, op: Load) -> tuple[Window, str]:
        found = self.bases[op.result.id]
        return found.window, found.pointer

    def array(self, value: Value, *, name: str | None = None) -> str:
        """Declares the array of a tile and returns its name; it is not yet the value's home."""
        name = name or f"v{value.id}"
        kind = names.c_type(value.dtype)
        count = value.shape[0] * value.shape[1]
        if count * 4 <= ON_STACK:
            self.say(f"alignas(64) {kind} {name}[{count}];")
        else:
            self.say(f"{kind} *const {name} = ({kind} *)(scratch + {self.scratch});")
            self.scratch += -(-count * 4 // 64) * 64
        return name

    def materialise(self, value: Value) -> str:
        """Puts a deferred value into an array of its own."""
        if value.id not in self.arrays:
            name = self.array(value)
            self.fill(name, value, value.shape)
            self.arrays[value.id] = name
        return self.arrays[value.id]

    def fill(self, name: str, value: Value, shape: Sequence[int]) -> None:
        rows, columns = shape
        place = f"{name}[r * {columns} + c]" if columns > 1 else f"{name}[r]"
        self.sweep(value, (rows, columns), f"{place} = {{}};")

    def sweep(
        self,
        value: Value,
        sizes: tuple[int, int],
        action: str,
        bounds: tuple[str, str, str, str] | None = None,
    ) -> None:
        """Runs `action` at each element (r, c), with `{}` for the element of `value`."""
        nest = self.nest()
        chunked = nest.has_nibbles(value)
        element = nest.element(value)
        r0, r1, c0, c1 = bounds or ("0", str(sizes[0]), "0", str(sizes[1]))
        small = sizes[0] > 1 and sizes[1] > 1 and sizes[0] * sizes[1] <= 512
        if small and bounds is None:
            self.say(f"#pragma GCC unroll {min(sizes[0], 8)}")
        elif sizes[1] == 1 and sizes[0] > 1:
            self.say("#pragma omp simd")
        with self.braces(f"for (long r = {r0}; r < {r1}; r++)"):
            self.say_all(nest.rows)
            if chunked:
                self.chunks(
                    sizes[1],
                    [
                        *nest.cells,
                        f"if (c >= {c0} && c < {c1}) {action.format(element)}"
                        if bounds
                        else action.format(element),
                    ],
                )
                return
            if sizes[1] == 1 and bounds is None:
                self.say("const long c = 0; (void)c;")
                self.say_all([*nest.cells, action.format(element)])
                return
            if sizes[1] > 1:
                self.say("#pragma omp simd")
            with self.braces(f"for (long c = {c0}; c < {c1}; c++)"):
                self.say_all([*nest.cells, action.format(element)])

    def chunks(self, columns: int, cells: list[str]) -> None:
        """Columns 0 .. `columns`, a multiple of LANES, in chunks of LANES."""
        if columns <= 8 * LANES:
            self.say(f"#pragma GCC unroll {max(1, columns // LANES)}")
        with self.braces(f"for (long c0 = 0; c0 < {columns}; c0 += {LANES})"):
            self.say("#pragma omp simd")
            with self.braces(f"for (long lane = 0; lane < {LANES}; lane++)"):
                self.say("const long c = c0 + lane; (void)c;")
                self.say_all(cells)
