"""Every error of the store that a caller may see.

StoreError (an engine.errors.TarsiaError)
├── CorruptStore          damaged or missing bytes; `path` names the file; nothing was changed
├── StoreLocked           another process (or another Database here) has the folder open
├── StoreClosed           used after close()
├── StoreFull             no space left; the write was not made, reads go on
├── LogFailed             the disk refused a sync: no further write until the database is reopened
├── CollectionNotFound
├── SchemaMismatch        what the caller expects is not what the collection is
│   ├── DimensionMismatch
│   ├── MetricMismatch
│   └── ModelMismatch     vectors of different models never mix
├── InvalidRow            an id, metadata or text of one row; `row` is its place in the batch
│   └── InvalidVector     NaN, infinite, or zero where a direction is needed
└── InvalidQuery          k, filter, text or name that means nothing
"""

from pathlib import Path

from engine.errors import TarsiaError


class StoreError(TarsiaError):
    code = "store_error"


class CorruptStore(StoreError):
    """Damage that cannot be an unfinished write. The message names the file and, if known, the offset."""

    code = "store_corrupt"

    def __init__(self, path: Path, reason: str, *, offset: int | None = None) -> None:
        place = f"{path} at byte {offset}" if offset is not None else str(path)
        super().__init__(f"{place}: {reason}; restore it from a backup, nothing was changed")
        self.path = path
        self.offset = offset
        self.reason = reason


class StoreLocked(StoreError):
    code = "store_locked"


class StoreClosed(StoreError):
    code = "store_closed"


class StoreFull(StoreError):
    code = "store_full"


class LogFailed(StoreError):
    code = "store_log_failed"


class CollectionNotFound(StoreError):
    code = "collection_not_found"


class SchemaMismatch(StoreError):
    code = "schema_mismatch"


class DimensionMismatch(SchemaMismatch):
    code = "dimension_mismatch"


class MetricMismatch(SchemaMismatch):
    code = "metric_mismatch"


class ModelMismatch(SchemaMismatch):
    code = "model_mismatch"


class InvalidRow(StoreError):
    """One row of a batch cannot be stored, so none was. `row` is 0-based in the caller's batch."""

    code = "invalid_row"

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}: {reason}")
        self.row, self.reason = row, reason


class InvalidVector(InvalidRow):
    code = "invalid_vector"


class InvalidQuery(StoreError):
    code = "invalid_query"
