"""What a collection is: its name, dimension, metric and the model whose vectors it holds."""

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from stores.errors import DimensionMismatch, InvalidQuery, MetricMismatch, ModelMismatch

Metric = Literal["cosine", "dot", "l2", "hamming"]
METRICS: tuple[str, ...] = get_args(Metric)
MAX_DIM = 65_536
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_name(name: str, what: str = "collection") -> str:
    """`name` if it can be a folder on any system, else InvalidQuery."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith("."):
        raise InvalidQuery(
            f"{what} name {name!r}: use 1 to 100 letters, digits, '_', '-' or '.', "
            "with a letter or digit first"
        )
    return name


@dataclass(frozen=True)
class Schema:
    """Fixed when the collection is created. `model` None means: the caller vouches for the vectors.

    For hamming `dim` counts bits, eight to a byte of what is stored.
    """

    dim: int
    metric: Metric
    model: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.dim, int) or isinstance(self.dim, bool) or not 1 <= self.dim <= MAX_DIM:
            raise InvalidQuery(f"dim must be a whole number from 1 to {MAX_DIM}, not {self.dim!r}")
        if self.metric not in METRICS:
            raise InvalidQuery(f"metric {self.metric!r}: use one of {', '.join(METRICS)}")
        if self.metric == "hamming" and self.dim % 8:
            raise InvalidQuery(f"for hamming dim counts bits, in whole bytes: {self.dim} is no multiple of 8")

    @property
    def width(self) -> int:
        """float32 words of a stored row: packed bits are kept in words too."""
        return -(-self.dim // 32) if self.metric == "hamming" else self.dim

    def require(self, name: str, dim: int | None, metric: str | None, model: str | None) -> None:
        """SchemaMismatch unless each value that is given is this schema's."""
        if dim is not None and dim != self.dim:
            raise DimensionMismatch(
                f"collection {name!r} holds {self.dim}-dimensional vectors, not {dim}; "
                f"open it with dim={self.dim} or use another collection"
            )
        if metric is not None and metric != self.metric:
            raise MetricMismatch(
                f"collection {name!r} was made with metric={self.metric!r}, not {metric!r}; "
                "open it with that or copy its rows into a new collection"
            )
        self.require_model(name, model)

    def require_model(self, name: str, model: str | None) -> None:
        if model is not None and model != self.model:
            made_by = f"model {self.model!r}" if self.model else "no model named"
            raise ModelMismatch(
                f"collection {name!r} holds vectors of {made_by}, not of {model!r}; "
                "embed with the same model, or move the rows to the other with Database.reembed"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "Schema":
        return cls(dim=body["dim"], metric=body["metric"], model=body["model"])
