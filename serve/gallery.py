"""Images that can be found again: by an image like them, or by words where the model reads texts too.

Here the engine and the store meet: vectors of `engine.vision` in a collection of their own for each model.
The images themselves are not kept, only their names and vectors.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from engine.errors import ImageNotFound
from engine.protocols import Progress
from engine.vision.io import ImageFile
from engine.vision.limits import ImageLimits
from engine.vision.pipeline import ViT
from stores import Collection, Database


@dataclass(frozen=True)
class ImageRecord:
    """One stored image: `id` is of its content, `bytes` its size, `created_at` in Unix seconds."""

    id: str
    name: str
    bytes: int
    created_at: int


@dataclass(frozen=True)
class FoundImage:
    """`score` is the cosine to what was asked for, in [-1, 1]."""

    image: ImageRecord
    score: float


class Gallery:
    """The images of one database by one model. Thread-safe.

    Example:
        >>> gallery.add([ImageFile("shoe.png", data)])
        >>> [found.image.name for found in gallery.search(ImageFile("like this.png", other), k=3)]
    """

    def __init__(self, database: Database, model: ViT, *, clock: Callable[[], float] = time.time) -> None:
        self._model = model
        self._clock = clock
        name = f"images-{hashlib.sha256(model.model_id.encode()).hexdigest()[:12]}"
        self._images: Collection = database.collection(
            name, dim=model.dim, metric="cosine", model=model.model_id
        )

    def add(
        self,
        files: Sequence[ImageFile],
        *,
        limits: ImageLimits | None = None,
        progress: Progress | None = None,
    ) -> list[ImageRecord]:
        """Embeds and stores images, durably, all or none of them; the same content again is stored
        once, under its last name.

        Raises ImageError for the first that cannot be read.
        """
        vectors = self._model.embed(files, limits=limits, progress=progress)
        now = int(self._clock())
        records = [ImageRecord(_image_id(file), file.name, len(file.data), now) for file in files]
        first = {record.id: place for place, record in reversed(list(enumerate(records)))}
        places = list(first.values())
        self._images.upsert(
            [records[place].id for place in places],
            vectors[places],
            metadata=[asdict(records[place]) for place in places],
        )
        return records

    def search(
        self, query: ImageFile | str, k: int = 10, *, limits: ImageLimits | None = None
    ) -> list[FoundImage]:
        """The k images most like an image, or that fit a text best (CLIP and SigLIP), best first.

        Raises ImageError, and UnsupportedInput for a text where the model reads none.
        """
        if isinstance(query, str):
            [vector] = self._model.texts.embed([query])
        else:
            [vector] = self._model.embed([query], limits=limits)
        return [
            FoundImage(ImageRecord(**hit.metadata), hit.score) for hit in self._images.search(vector, k=k)
        ]

    def images(self) -> list[ImageRecord]:
        """All images, oldest first."""
        records = [ImageRecord(**row.metadata) for row in self._images]
        return sorted(records, key=lambda record: (record.created_at, record.name, record.id))

    def delete(self, image_id: str) -> None:
        """Forgets an image. Raises ImageNotFound."""
        if not self._images.delete([image_id]):
            raise ImageNotFound(f"no image {image_id[:80]!r}", param="image_id")


def _image_id(file: ImageFile) -> str:
    return f"img-{hashlib.sha256(file.data).hexdigest()[:24]}"
