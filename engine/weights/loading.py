"""Where a checkpoint's parameters come from: packed as they are, kept from the last time, or built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import UnsupportedModel
from engine.registry import PACKED
from engine.weights.build import build_params
from engine.weights.identity import content_identity
from engine.weights.names import Rename
from engine.weights.packed import PackedWeights, read_packed
from engine.weights.packed_cache import PackedCache
from engine.weights.policy import Policy, Quant
from engine.weights.source import TensorSource


def is_packed(path: Path) -> bool:
    """Whether the folder holds packed weights, which have their form already."""
    return (path / PACKED).is_file()


@dataclass(frozen=True)
class Tensors:
    """Tensors of a checkpoint's own files, as `build_params` takes them."""

    files: Sequence[Path]
    source: TensorSource
    rename: Rename
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weights:
    """Parameters, the usual form of their matrices, and what the content is called."""

    params: dict[str, Any]
    quant: Quant
    identity: str


@dataclass(frozen=True)
class Wish:
    """What the caller of `load_checkpoint` asks of the weights; no policy takes them as they are."""

    policy: Policy | None = None
    cache: PackedCache | None = None

    def packed(self, folder: Path) -> PackedWeights | None:
        """The folder's packed weights, if it has any. UnsupportedModel if they are not in the form asked."""
        if not is_packed(folder):
            return None
        found = read_packed(folder / PACKED)
        if self.policy not in (None, Policy(found.quant)):
            raise UnsupportedModel(
                f"{folder}: its weights are packed as {found.quant}; load it without another quant, or "
                "quantise the model it was made from"
            )
        return found

    def load(
        self,
        origin: Tensors | PackedWeights,
        shapes: Mapping[str, tuple[int, ...]],
        settings: Sequence[Path] = (),
    ) -> Weights:
        """The parameters of `shapes`. `settings` are files that the identity depends on too."""
        if isinstance(origin, PackedWeights):
            identity = content_identity([origin.path], settings)
            return Weights(origin.params(shapes), origin.quant, identity)
        policy, identity = self.policy or Policy(), content_identity(origin.files, settings)
        policy.check(shapes)

        def build() -> dict[str, Any]:
            return build_params(origin.source, shapes, origin.rename, policy, origin.ignored)

        if self.cache is None:
            return Weights(build(), policy.quant, identity)
        kept = self.cache.params(origin.files, identity, policy, shapes, build)
        return Weights(kept, policy.quant, identity)
