"""The passes that every traced kernel goes through, in order."""

from dsl.ir.ops import Kernel
from dsl.passes.cse import eliminate_common
from dsl.passes.dce import eliminate_dead
from dsl.passes.fold import fold


def simplify(kernel: Kernel) -> Kernel:
    """fold, then common subexpressions, then dead code; target-independent."""
    return eliminate_dead(eliminate_common(fold(kernel)))
