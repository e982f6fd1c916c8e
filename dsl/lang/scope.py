"""The builder of the kernel that is being traced in this thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dsl.ir.build import Builder
from dsl.lang.errors import KernelError

_builder: ContextVar[Builder | None] = ContextVar("builder", default=None)


def builder() -> Builder:
    """The builder at work. Raises KernelError outside of a kernel."""
    found = _builder.get()
    if found is None:
        raise KernelError("this works only inside a kernel; call it from a function under @dsl.kernel")
    return found


def is_tracing() -> bool:
    return _builder.get() is not None


@contextmanager
def tracing(with_builder: Builder) -> Iterator[Builder]:
    token = _builder.set(with_builder)
    try:
        yield with_builder
    finally:
        _builder.reset(token)
