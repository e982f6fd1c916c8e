"""What a search asks for, checked before anything is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax

from stores.errors import InvalidQuery, InvalidRow
from stores.query.filters import Filter
from stores.segment.sparse import encode_sparse
from stores.segment.view import Float32

Fusion = Literal["rrf", "weighted"]
Score = Callable[[jax.Array, jax.Array], jax.Array]
MAX_K = 100_000
MAX_GROUP_SIZE = 1000


@dataclass(frozen=True)
class Request:
    """`vector` (dim,) as the collection's metric has it; see `Collection.search` for the rest."""

    vector: Float32 | None
    text: str | None = None
    k: int = 10
    offset: int = 0
    filter: Filter | None = None
    ef: int | None = None
    exact: bool = False
    dims: int | None = None
    score: Score | None = None
    candidates: int | None = None
    group_by: str | None = None
    group_size: int = 1
    fusion: Fusion = "rrf"
    text_weight: float = 0.5
    sparse: Mapping[int, float] | None = None

    def __post_init__(self) -> None:
        if self.vector is None and self.text is None and self.sparse is None:
            raise InvalidQuery("search needs a vector, a text or a sparse vector")
        if self.sparse is not None:
            try:
                encode_sparse(0, self.sparse)
            except InvalidRow as error:
                raise InvalidQuery(f"sparse: {error.reason}") from error
        check_count("k", self.k, 1, MAX_K)
        check_count("offset", self.offset, 0, MAX_K)
        check_count("group_size", self.group_size, 1, MAX_GROUP_SIZE)
        for name, least in (("ef", 1), ("candidates", 1)):
            if (value := getattr(self, name)) is not None:
                check_count(name, value, least, MAX_K)
        if self.fusion not in get_args(Fusion):
            raise InvalidQuery(f"fusion must be one of {', '.join(get_args(Fusion))}, not {self.fusion!r}")
        if not _is_number(self.text_weight) or not 0 <= self.text_weight <= 1:
            raise InvalidQuery(f"text_weight must be from 0 to 1, not {self.text_weight!r}")
        if self.vector is None and (self.score is not None or self.dims is not None):
            raise InvalidQuery("score= and dims= are about vectors: give a vector too")
        if self.dims is not None and self.vector is not None:
            check_count("dims", self.dims, 1, len(self.vector))
        if self.score is not None and not callable(self.score):
            raise InvalidQuery("score must be a function of (query (dim,), vectors (n, dim)) giving (n,)")
        if self.group_by is not None and (not isinstance(self.group_by, str) or not self.group_by):
            raise InvalidQuery(f"group_by must name a metadata field, not {self.group_by!r}")


def check_count(name: str, value: Any, least: int, most: int) -> None:
    """InvalidQuery unless `value` is a whole number from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value:
        raise InvalidQuery(f"{name} must be a whole number from {least}, not {value!r}")
    if value > most:
        raise InvalidQuery(f"{name} is {value}, the most is {most}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
