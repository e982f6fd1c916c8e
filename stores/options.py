"""How collections of a database are kept: what `Database.open(path, options=...)` takes."""

from dataclasses import dataclass

from stores.log.wal import ROTATE_BYTES


@dataclass(frozen=True)
class Options:
    """When the memtable is sealed (its rows, or bytes in the log), when a log file is full, from how many
    rows a segment gets a graph, whether sealing and merging are left to threads of their own, and how
    much memory a collection's graphs may take before they are searched on disk (None: all they want). One
    query in `shadow_every` is answered exactly too, to measure recall (None: none is)."""

    seal_rows: int = 8192
    seal_bytes: int = 64 << 20
    rotate_bytes: int = ROTATE_BYTES
    graph_rows: int = 4096
    background: bool = True
    memory_bytes: int | None = None
    shadow_every: int | None = 1000
