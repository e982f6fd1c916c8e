from stores.collection import Collection, CollectionStats, Row, VerifyReport
from stores.database import Database
from stores.errors import StoreError
from stores.query.search import Hit
from stores.tree import Options

__all__ = ["Collection", "CollectionStats", "Database", "Hit", "Options", "Row", "StoreError", "VerifyReport"]
