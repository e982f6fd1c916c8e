"""`vmap` of a kernel: one more grid axis, outermost, and one more leading index of the batched Refs."""

import dataclasses
from collections.abc import Collection

from dsl.ir.ops import At, AtomicAdd, Kernel, Load, Loop, Op, Pid, Store, defined, renumber, walk
from dsl.ir.types import RefType, Value


def batch(kernel: Kernel, size: int, names: Collection[str]) -> Kernel:
    """The kernel over a batch of `size`: Refs in `names` and all outputs get a leading axis."""
    batched = {ref.name for ref in kernel.refs if ref.name in names or ref.is_written}
    ids = [value.id for op in walk(kernel.body) for value in defined(op)]
    place = Value(max(ids, default=-1) + 1, "i32")
    body = (Pid(place, 0), *_block(kernel.body, place, batched))
    refs = tuple(_wider(ref, size) if ref.name in batched else ref for ref in kernel.refs)
    return renumber(dataclasses.replace(kernel, refs=refs, grid=(size, *kernel.grid), body=body))


def _wider(ref: RefType, size: int) -> RefType:
    return dataclasses.replace(ref, shape=(size, *ref.shape))


def _block(body: tuple[Op, ...], place: Value, batched: set[str]) -> tuple[Op, ...]:
    return tuple(_op(op, place, batched) for op in body)


def _op(op: Op, place: Value, batched: set[str]) -> Op:
    match op:
        case Pid():
            return dataclasses.replace(op, axis=op.axis + 1)
        case Loop():
            return dataclasses.replace(op, body=_block(op.body, place, batched))
        case Load() | Store() | AtomicAdd() if op.ref in batched:
            return dataclasses.replace(op, index=(At(place), *op.index))
    return op
