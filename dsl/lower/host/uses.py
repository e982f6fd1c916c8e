"""Which tile values are computed where they are used instead of being kept in an array."""

from collections.abc import Iterable
from dataclasses import dataclass

from dsl.ir.ops import Binary, Cast, Dot, Full, Iota, Kernel, Load, Loop, Op, Span, Store, Unary, Where
from dsl.ir.types import Shape, Value


@dataclass(frozen=True)
class Use:
    """One use: the block it is in, and the shape of the loop nest that would compute the value."""

    block: int
    shape: Shape | None


class Uses:
    """All uses of all values of a kernel; `block` numbers are those of `enter`."""

    def __init__(self, kernel: Kernel) -> None:
        self._uses: dict[int, list[Use]] = {}
        self._blocks: dict[int, int] = {}
        self._count = 0
        self._visit(kernel.body)

    def _visit(self, body: Iterable[Op]) -> None:
        block = self._count
        self._count += 1
        for op in body:
            for value in op.results:
                self._blocks[value.id] = block
            for value in op.operands:
                self._uses.setdefault(value.id, []).append(Use(block, _nest_shape(op, value)))
            if isinstance(op, Loop):
                inner = self._count
                self._visit(op.body)
                for value in op.yields:
                    self._uses.setdefault(value.id, []).append(Use(inner, value.shape))

    def count(self, number: int) -> int:
        """How often the value with this id is used."""
        return len(self._uses.get(number, []))

    def deferred(self, op: Op, *, direct: bool) -> bool:
        """True when the tile that `op` makes is computed inside the loop that uses it.

        `direct`: a load whose elements are read where they lie, without guards.
        """
        match op:
            case Full() | Iota():
                return True
            case Load() if not direct:
                return False
            case Load(result=result) if result.dtype in ("f32", "i32") and not self._narrow(op):
                return True
            case Unary() | Binary() | Where() | Cast() | Load():
                return self._once_in_place(op.results[0])
        return False

    @staticmethod
    def _narrow(op: Load) -> bool:
        return op.result.dtype == "i32"

    def _once_in_place(self, value: Value) -> bool:
        uses = self._uses.get(value.id, [])
        return len(uses) == 1 and uses[0] == Use(self._blocks[value.id], value.shape)


def _nest_shape(op: Op, value: Value) -> Shape | None:
    """None where the value must be in an array."""
    match op:
        case Dot():
            return None
        case Store(index=index):
            sizes = [1, 1]
            for entry in index:
                if isinstance(entry, Span):
                    sizes[entry.tile_axis] = entry.size
            return tuple(sizes)
        case Unary(result=result) | Binary(result=result) | Where(result=result) | Cast(result=result):
            return result.shape
    return value.shape
