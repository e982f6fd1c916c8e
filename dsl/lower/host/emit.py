"""IR -> C++: a function that runs a range of a kernel's programs on one thread.

Tiles are arrays of 64-byte alignment, small ones on the stack (compilers keep those in registers across
a loop), larger ones in the thread's scratch memory. Elementwise ops that are used once are fused into
the loop that uses them; loops over columns are written so that compilers vectorise them. Where a guard
depends on the program alone, programs that need none run in a version of their own.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dsl.ir.access import covers
from dsl.ir.affine import Ranges
from dsl.ir.ops import AtomicAdd, Cast, Dot, Index, Kernel, Load, Loop, Op, Pid, Reduce, Span, Store, walk
from dsl.ir.types import NIBBLES, Value
from dsl.lower.host import names
from dsl.lower.host.nest import LANES, Nest, offset
from dsl.lower.host.uses import Uses
from dsl.lower.host.windows import Window, inner_conditions, ref_strides, whole_groups, window
from dsl.passes.cost import cost

VERSION = 1
"""Part of the key under which compiled kernels are kept; raise it when the emitted code changes."""
ON_STACK = 8192
"""Bytes up to which a tile is a local array."""
WORTH_THREADS = 1 << 23
"""Bytes moved plus flops from which the grid is split over threads: some 0.3 ms of work."""

Trusted = frozenset[tuple[str, Index, int]]
_START = {"sum": {"float": "0.0f", "int": "0"}}
_START["max"] = {"float": "-__builtin_inff()", "int": "(-2147483647 - 1)"}
_START["min"] = {"float": "__builtin_inff()", "int": "2147483647"}
_FOLD = {"sum": "{0} + {1}", "max": "{1} > {0} ? {1} : {0}", "min": "{1} < {0} ? {1} : {0}"}


def emit(kernel: Kernel) -> str:
    """The source of `prepare` and `programs` and the macros that `handler.h` needs."""
    facts = Ranges(kernel)
    conditions = inner_conditions(kernel, facts)
    safe = _Program(kernel, facts, frozenset())
    versions = [("guarded", safe.source("guarded"))]
    scratch = safe.scratch
    if conditions:
        fast = _Program(kernel, facts, frozenset(conditions))
        versions.append(("inner", fast.source("inner")))
        scratch = max(scratch, fast.scratch)
    parts = [*_macros(kernel, scratch), *(text for _, text in versions), _prepare(kernel)]
    return "\n".join([*parts, _programs(kernel, list(dict.fromkeys(conditions.values())))])


def _macros(kernel: Kernel, scratch: int) -> list[str]:
    total = 1
    for extent in kernel.grid:
        total *= extent
    atomic = any(isinstance(op, AtomicAdd) for op in walk(kernel.body))
    spent = cost(kernel)
    split = total > 1 and not atomic and spent.loaded + spent.stored + spent.flops >= WORTH_THREADS
    values = {
        "ARGUMENTS": len(kernel.inputs),
        "RESULTS": len(kernel.outputs),
        "SCRATCH": scratch,
        "PROGRAMS": f"{total}L",
        "SPLIT": "true" if split else "false",
    }
    return [f"#define {name} {value}" for name, value in values.items()]


def _parameters(kernel: Kernel) -> list[tuple[str, str, str]]:
    """(C type, C name, where it is found) of each Ref."""
    found = []
    inputs = [ref.name for ref in kernel.inputs]
    outputs = [ref.name for ref in kernel.outputs]
    for number, ref in enumerate(kernel.refs):
        kind, name = names.STORED[ref.dtype], f"ref{number}_{ref.name}"
        if ref.is_written:
            found.append((f"{kind} *__restrict", name, f"({kind} *)results[{outputs.index(ref.name)}]"))
        else:
            place = f"(const {kind} *)args[{inputs.index(ref.name)}]"
            found.append((f"const {kind} *__restrict", name, place))
    return found


def _prepare(kernel: Kernel) -> str:
    """Outputs begin as zeros or as the caller's array; XLA may have given one buffer for both."""
    lines = ["static void prepare(void **args, void **results) {"]
    inputs = [ref.name for ref in kernel.inputs]
    for number, ref in enumerate(kernel.outputs):
        if ref.role == "inout":
            source = f"args[{inputs.index(ref.name)}]"
            test = f"if (results[{number}] != {source}) "
            lines.append(f"  {test}memcpy(results[{number}], {source}, {ref.nbytes});")
        elif not covers(kernel, ref):
            lines.append(f"  memset(results[{number}], 0, {ref.nbytes});")
    return "\n".join([*lines, "  (void)args, (void)results;", "}"])


def _programs(kernel: Kernel, conditions: list[str]) -> str:
    lines = ["static void programs(void **args, void **results, char *scratch, long first, long last) {"]
    found = _parameters(kernel)
    lines += [f"  {kind} {name} = {place};" for kind, name, place in found]
    lines += ["  for (long p = first; p < last; p++) {", "    long left = p;"]
    for axis in reversed(range(len(kernel.grid))):
        extent = kernel.grid[axis]
        lines.append(f"    const long pid{axis} = left % {extent}; left /= {extent}; (void)pid{axis};")
    pids = [f"(int)pid{axis}" for axis in range(len(kernel.grid))]
    given = ", ".join([*(name for _, name, _ in found), "scratch", *pids])
    if conditions:
        test = " && ".join(f"({each})" for each in conditions)
        lines += [f"    if ({test}) {{ inner({given}); continue; }}"]
    return "\n".join([*lines, f"    guarded({given});", "  }", "}"])


@dataclass
class _Base:
    window: Window
    pointer: str


class _Program:
    """One version of the code of a program; axes in `trusted` need no guard in it."""

    def __init__(self, kernel: Kernel, facts: Ranges, trusted: Trusted) -> None:
        self.kernel = kernel
        self.facts = facts
        self.trusted = trusted
        self.uses = Uses(kernel)
        self.refs = {r.name: p[1] for r, p in zip(kernel.refs, _parameters(kernel), strict=True)}
        self.arrays: dict[int, str] = {}
        self.lazy: dict[int, Op] = {}
        self.bases: dict[int, _Base] = {}
        self.scratch = 0
        self.lines: list[str] = []
        self.depth = 1
        self.counter = 0

    def source(self, name: str) -> str:
        given = [f"{kind} {ref}" for kind, ref, _ in _parameters(self.kernel)]
        pids = [f"const int pid{axis}" for axis in range(len(self.kernel.grid))]
        self.block(self.kernel.body)
        head = f"INLINE void {name}({', '.join([*given, 'char *scratch', *pids])}) {{"
        return "\n".join([head, "  (void)scratch;", *self.lines, "}"])

    def say(self, line: str) -> None:
        self.lines.append(line if line.startswith("#") else "  " * self.depth + line)

    @contextmanager
    def braces(self, head: str) -> Iterator[None]:
        self.say(f"{head} {{".lstrip())
        self.depth += 1
        yield
        self.depth -= 1
        self.say("}")

    def block(self, body: Iterable[Op]) -> None:
        for op in body:
            self.op(op)

    def op(self, op: Op) -> None:
        match op:
            case Loop():
                self.loop(op)
            case Store() | AtomicAdd():
                self.write(op)
            case Dot():
                self.dot(op)
            case Reduce():
                self.reduce(op)
            case Load():
                self.load(op)
            case _:
                self.plain(op)

    def plain(self, op: Op) -> None:
        value = op.results[0]
        if value.is_scalar:
            self.scalar(op, value)
        elif self.uses.deferred(op, direct=True):
            self.lazy[value.id] = op
        else:
            self.lazy[value.id] = op
            self.materialise(value)

    def scalar(self, op: Op, value: Value) -> None:
        name = f"s{value.id}"
        if isinstance(op, Pid):
            text = f"pid{op.axis}"
        elif hasattr(op, "value"):
            text = names.constant(op.value, value.dtype)
        else:
            text = self.nest()._computed(op)
        self.say(f"const {names.c_type(value.dtype)} {name} = {text};")
        self.arrays[value.id] = name

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

    def say_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.say(line)

    def base(self, ref_name: str, index: Index, key: int) -> _Base:
        """Emits the pointer to a window's first element."""
        found = window(self.facts, self.kernel.ref(ref_name), index, self.trusted)
        terms = [
            f"{self.arrays[entry.start.id]} * {stride}L"
            for entry, stride in zip(index, ref_strides(found.ref), strict=True)
        ]
        halved = " >> 1" if found.ref.dtype in NIBBLES else ""
        const = "" if found.ref.is_written else "const "
        pointer = f"p{key}"
        kind = f"{const}{names.STORED[found.ref.dtype]} *"
        self.say(f"{kind}const {pointer} = {self.refs[ref_name]} + (({' + '.join(terms)}){halved});")
        return _Base(found, pointer)

    def load(self, op: Load) -> None:
        value = op.result
        base = self.base(op.ref, op.index, value.id)
        self.bases[value.id] = base
        packed = base.window.ref.dtype in NIBBLES
        groups = packed and whole_groups(self.facts, base.window.ref, op.index)
        if value.is_scalar:
            self.scalar_load(op, base)
        elif base.window.guarded or (packed and not groups):
            self.guarded_load(op, base)
        else:
            self.lazy[value.id] = op
            if not self.uses.deferred(op, direct=True):
                self.materialise(value)

    def raw(self, op: Load, base: _Base) -> str:
        """One element, wherever it lies."""
        ref = base.window.ref
        if ref.dtype not in NIBBLES:
            return names.loaded(f"{base.pointer}[{offset(base.window)}]", ref.dtype)
        places = []
        for entry in op.index:
            moved = f" + {'rc'[entry.tile_axis]}" if isinstance(entry, Span) else ""
            places.append(f"({self.arrays[entry.start.id]}{moved})")
        strides = ref_strides(ref)
        lead = " + ".join(
            [f"{p} * {s // 2}L" for p, s in zip(places[:-1], strides[:-1], strict=True)] or ["0"]
        )
        k = places[-1]
        code = f"({self.refs[op.ref]}[{lead} + {k} / 32 * 16 + {k} % 16] >> {k} / 16 % 2 * 4 & 15)"
        return f"(({code} ^ 8) - 8)" if ref.dtype == "i4" else code

    def scalar_load(self, op: Load, base: _Base) -> None:
        value = op.result
        name = f"s{value.id}"
        text = self.raw(op, base)
        for axis in base.window.guarded:
            start = self.arrays[op.index[axis].start.id]
            inside = f"{start} >= 0 && {start} < {base.window.ref.shape[axis]}"
            text = f"({inside} ? {text} : {names.constant(op.other, value.dtype)})"
        self.say(f"const {names.c_type(value.dtype)} {name} = {text};")
        self.arrays[value.id] = name

    def guarded_load(self, op: Load, base: _Base) -> None:
        value = op.result
        name = self.array(value)
        rows, columns = value.shape
        with self.braces(""):
            bounds = self.bounds(base.window)
            place = f"{name}[r * {columns} + c]"
            other = names.constant(op.other, value.dtype)
            full = f"r0 <= 0 && c0 <= 0 && r1 >= {rows} && c1 >= {columns}"
            count = rows * columns
            self.say(f"if (!({full})) for (long i = 0; i < {count}; i++) {name}[i] = {other};")
            with self.braces(f"for (long r = {bounds[0]}; r < {bounds[1]}; r++)"):
                self.say("#pragma omp simd")
                with self.braces(f"for (long c = {bounds[2]}; c < {bounds[3]}; c++)"):
                    self.say(f"{place} = {self.raw(op, base)};")
        self.arrays[value.id] = name

    def bounds(self, found: Window) -> tuple[str, str, str, str]:
        """Declares r0, r1, c0, c1: the part of a guarded window that is inside."""
        self.say(f"long r0 = 0, r1 = {found.sizes[0]}, c0 = 0, c1 = {found.sizes[1]};")
        for axis in found.guarded:
            entry, extent = found.index[axis], found.ref.shape[axis]
            start = self.arrays[entry.start.id]
            if isinstance(entry, Span):
                low, high = ("r0", "r1") if entry.tile_axis == 0 else ("c0", "c1")
                self.say(f"if ({start} < 0) {low} = -(long){start};")
                self.say(f"if ({high} > {extent}L - {start}) {high} = {extent}L - {start};")
            else:
                self.say(f"if ({start} < 0 || {start} >= {extent}) r1 = 0;")
        return "r0", "r1", "c0", "c1"

    def write(self, op: Store | AtomicAdd) -> None:
        self.counter += 1
        base = self.base(op.ref, op.index, -self.counter if False else 100000 + self.counter)
        found = base.window
        value = op.value
        if isinstance(op, Store) and value.id in self.lazy and value.id not in self.arrays:
            inner = self.lazy[value.id]
            if isinstance(inner, Cast) and inner.operand.dtype == "f32" and value.dtype in ("f16", "bf16"):
                value = inner.operand  # the store rounds
        sign = "=" if isinstance(op, Store) else "+="
        action = f"{base.pointer}[{offset(found)}] {sign} {names.to_store('{}', found.ref.dtype)};"
        if not found.guarded:
            self.sweep(value, found.sizes, action)
            return
        with self.braces(""):
            bounds = self.bounds(found)
            if self.nest().has_nibbles(value):
                self.materialise(value)
            self.sweep(value, found.sizes, action, bounds)

    def reduce(self, op: Reduce) -> None:
        name = self.array(op.result)
        if op.axis == 0:
            self.reduce_rows(op, name)
        else:
            self.reduce_columns(op, name)
        self.arrays[op.result.id] = name

    def reduce_rows(self, op: Reduce, name: str) -> None:
        rows, columns = op.operand.shape
        kind = names.c_type(op.result.dtype)
        self.say(f"for (long c = 0; c < {columns}; c++) {name}[c] = {_START[op.kind][kind]};")
        fold = _FOLD[op.kind].format(f"{name}[c]", "x")
        nest = self.nest()
        if nest.has_nibbles(op.operand):
            self.materialise(op.operand)
            nest = self.nest()
        element = nest.element(op.operand)
        with self.braces(f"for (long r = 0; r < {rows}; r++)"):
            self.say_all(nest.rows)
            if columns > 1:
                self.say("#pragma omp simd")
            with self.braces(f"for (long c = 0; c < {columns}; c++)"):
                self.say_all([*nest.cells, f"const {kind} x = {element}; {name}[c] = {fold};"])

    def reduce_columns(self, op: Reduce, name: str) -> None:
        rows, columns = op.operand.shape
        kind = names.c_type(op.result.dtype)
        nest = self.nest()
        element = nest.element(op.operand)
        whole = columns // LANES * LANES if columns >= 2 * LANES or nest.has_nibbles(op.operand) else 0
        with self.braces(f"for (long r = 0; r < {rows}; r++)"):
            self.say_all(nest.rows)
            self.say(f"{kind} total = {_START[op.kind][kind]};")
            step = f"const {kind} x = {element}; "
            if whole:
                self.say(f"alignas(64) {kind} lanes[{LANES}];")
                self.say(f"for (long i = 0; i < {LANES}; i++) lanes[i] = total;")
                fold = _FOLD[op.kind].format("lanes[lane]", "x")
                self.chunks(whole, [*nest.cells, f"{step}lanes[lane] = {fold};"])
                if op.kind == "sum" and kind == "float":
                    self.say("total = total_of(lanes);")
                else:
                    self.tree(op.kind)
            if whole < columns:
                with self.braces(f"for (long c = {whole}; c < {columns}; c++)"):
                    fold = _FOLD[op.kind].format("total", "x")
                    self.say_all([*nest.cells, f"{step}total = {fold};"])
            self.say(f"{name}[r] = total;")

    def tree(self, kind: str) -> None:
        """Joins the lanes pairwise into `total`."""
        width = LANES // 2
        while width:
            fold = _FOLD[kind].format("lanes[i]", f"lanes[i + {width}]")
            self.say(f"for (long i = 0; i < {width}; i++) lanes[i] = {fold};")
            width //= 2
        self.say("total = lanes[0];")

    def dot(self, op: Dot) -> None:
        left, right = self.matrix(op.left), self.matrix(op.right)
        (rows, inner), columns = op.left.shape, op.result.shape[1]
        name = self.array(op.result)
        if op.transpose_b:
            turned = "nullptr"
            if rows > 2:
                turned = self.array(Value(op.result.id, "f32", (inner, columns)), name=f"t{op.result.id}")
            self.say(f"dot_transposed({left}, {right}, {name}, {turned}, {rows}, {columns}, {inner});")
        else:
            self.say(f"dot({left}, {right}, {name}, {rows}, {columns}, {inner});")
        self.arrays[op.result.id] = name

    def matrix(self, value: Value) -> str:
        """Pointer and row stride of an operand of dot; read where it lies if it is f32 in memory."""
        op = self.lazy.get(value.id)
        if value.id not in self.arrays and isinstance(op, Load) and value.dtype == "f32":
            base = self.bases[value.id]
            rows, columns = base.window.strides
            if base.window.ref.dtype == "f32" and (columns == 1 or value.shape[1] == 1):
                return f"{base.pointer}, {rows}"
        return f"{self.materialise(value)}, {value.shape[1]}"

    def loop(self, op: Loop) -> None:
        for carry, final, init in zip(op.carries, op.finals, op.init, strict=True):
            self.carry(carry, init)
            self.arrays[final.id] = self.arrays[carry.id]
        lo, hi = self.arrays[op.lo.id], self.arrays[op.hi.id]
        most = "" if op.max_trip is None else f" && s{op.induction.id} < {lo} + {op.max_trip}L"
        head = f"for (int s{op.induction.id} = {lo}; s{op.induction.id} < {hi}{most}; s{op.induction.id}++)"
        self.arrays[op.induction.id] = f"s{op.induction.id}"
        with self.braces(head):
            self.block(op.body)
            self.advance(op)

    def carry(self, carry: Value, init: Value) -> None:
        if carry.is_scalar:
            name = f"k{carry.id}"
            self.say(f"{names.c_type(carry.dtype)} {name} = {self.arrays[init.id]};")
        else:
            name = self.array(carry, name=f"k{carry.id}")
            self.fill(name, init, carry.shape)
        self.arrays[carry.id] = name

    def advance(self, op: Loop) -> None:
        """Carries take the values yielded; each in place once no other yield still reads it."""
        left = [(c, y) for c, y in zip(op.carries, op.yields, strict=True) if c != y]
        while left:
            ready = next((pair for pair in left if not self._read_by_others(pair, left)), None)
            if ready is None:
                number = next(i for i, _ in enumerate(left))
                carry, value = left[number]
                left[number] = carry, self.kept(value)
                if left[number][1] == value:
                    left.append(left.pop(0))
                continue
            left.remove(ready)
            carry, value = ready
            home = self.arrays[carry.id]
            if carry.is_scalar:
                self.say(f"{home} = {self.arrays[value.id]};")
            else:
                self.fill(home, value, carry.shape)

    def kept(self, value: Value) -> Value:
        """A copy of `value` that changes of carries do not reach."""
        self.counter += 1
        copy = Value(1000000 + self.counter, value.dtype, value.shape)
        if value.is_scalar:
            self.say(f"const {names.c_type(value.dtype)} s{copy.id} = {self.arrays[value.id]};")
            self.arrays[copy.id] = f"s{copy.id}"
        else:
            name = self.array(copy)
            self.fill(name, value, value.shape)
            self.arrays[copy.id] = name
        return copy

    def _read_by_others(self, pair: tuple[Value, Value], left: list[tuple[Value, Value]]) -> bool:
        home = self.arrays[pair[0].id]
        return any(home in self._reads(other) for carry, other in left if carry != pair[0])

    def _reads(self, value: Value) -> set[str]:
        if value.id in self.arrays:
            return {self.arrays[value.id]}
        return {name for operand in self.lazy[value.id].operands for name in self._reads(operand)}
