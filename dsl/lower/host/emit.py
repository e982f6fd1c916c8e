"""IR -> C++: a function that runs a range of a kernel's programs on one thread.

Tiles are arrays of 64-byte alignment, small ones on the stack (compilers keep those in registers across
a loop), larger ones in the thread's scratch memory. Elementwise ops that are used once are fused into
the loop that uses them; loops over columns are written so that compilers vectorise them. Where a guard
depends on the program alone, programs that need none run in a version of their own.
"""

from dsl.ir.access import covers
from dsl.ir.affine import Ranges
from dsl.ir.ops import AtomicAdd, Kernel, walk
from dsl.lower.host import names
from dsl.lower.host.program import block
from dsl.lower.host.windows import inner_conditions
from dsl.lower.host.writer import Trusted, Writer
from dsl.passes.cost import cost

WORTH_THREADS = 1 << 20
"""Bytes moved plus flops from which the grid is split over threads: some 40 us of work on one thread."""


def emit(kernel: Kernel) -> str:
    """The source of `prepare` and `programs` and the macros that `handler.h` needs."""
    facts = Ranges(kernel)
    conditions = inner_conditions(kernel, facts)
    versions = [_version(kernel, facts, "guarded", frozenset())]
    if conditions:
        versions.append(_version(kernel, facts, "inner", frozenset(conditions)))
    scratch = max(bytes_ for _, bytes_ in versions)
    sources = "".join(text for text, _ in versions)
    header = ['#include "integer_dots.h"'] if "Lanes " in sources else []
    header += ['#include "turned_dots.h"'] if "Column " in sources else []
    parts = [*header, *_macros(kernel, scratch), *(text for text, _ in versions), _prepare(kernel)]
    return "\n".join([*parts, _programs(kernel, list(dict.fromkeys(conditions.values())))])


def _version(kernel: Kernel, facts: Ranges, name: str, trusted: Trusted) -> tuple[str, int]:
    """The function that runs one program, and the bytes of scratch memory it needs."""
    refs = {r.name: p[1] for r, p in zip(kernel.refs, _parameters(kernel), strict=True)}
    w = Writer(kernel, facts, trusted, refs)
    block(w, kernel.body)
    given = [f"{kind} {ref}" for kind, ref, _ in _parameters(kernel)]
    pids = [f"const int pid{axis}" for axis in range(len(kernel.grid))]
    head = f"INLINE void {name}({', '.join([*given, 'char *scratch', *pids])}) {{"
    return "\n".join([head, "  (void)scratch;", *w.lines, "}"]), w.scratch


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
