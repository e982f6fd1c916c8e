"""Caps that a process which reads untrusted bytes puts on itself.

What the system cannot cap (anything on Windows, address space on macOS) is left out; the parent's clock
holds everywhere.
"""

import math
import sys

if sys.platform != "win32":
    import resource


def limit_memory(most: int) -> None:
    """Address space of `most` bytes, and no core dumps: beyond it allocations fail."""
    if sys.platform != "win32":
        _cap(resource.RLIMIT_AS, most)
        _cap(resource.RLIMIT_CORE, 0)


def limit_processor_time(seconds: float) -> None:
    """Processor time from now on, in whole seconds; the system ends a process that takes more."""
    if sys.platform != "win32":
        used = resource.getrusage(resource.RUSAGE_SELF)
        _cap(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + seconds))


if sys.platform != "win32":

    def _cap(what: int, most: int) -> None:
        _, hard = resource.getrlimit(what)
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(what, (soft, hard))
        except (OSError, ValueError):
            return
