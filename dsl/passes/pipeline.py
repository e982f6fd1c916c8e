"""The passes that every traced kernel goes through, in order."""

from dsl.ir.ops import Kernel
from dsl.passes.cse import eliminate_common
from dsl.passes.dce import eliminate_dead
from dsl.passes.fold import fold
from dsl.passes.hoist import hoist_invariant
from dsl.passes.known import decide_known

ROUNDS = 8
"""One pass may give another something to do: they repeat until nothing changes, or this often."""


def simplify(kernel: Kernel) -> Kernel:
    """fold, known guards, common subexpressions, loop invariants, dead code; target-independent."""
    for _ in range(ROUNDS):
        before = kernel
        kernel = decide_known(fold(kernel))
        kernel = eliminate_dead(hoist_invariant(eliminate_common(kernel)))
        if kernel == before:
            break
    return kernel
