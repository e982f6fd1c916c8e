from stores.collection import Collection, CollectionStats, Row, VerifyReport
from stores.database import Database
from stores.errors import StoreError
from stores.log.snapshot import Snapshot
from stores.options import Options
from stores.query.explain import Explanation, Hit, Hits

__all__ = [
    "Collection",
    "CollectionStats",
    "Database",
    "Explanation",
    "Hit",
    "Hits",
    "Options",
    "Row",
    "Snapshot",
    "StoreError",
    "VerifyReport",
]
