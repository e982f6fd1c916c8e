"""From images to labels, vectors and maps: `ViT`, a loaded image model with its preprocessing."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.errors import BadCheckpoint, FileError, InvalidRequest, UnsupportedInput, UnsupportedModel
from engine.models import vit
from engine.models.clip_config import ClipConfig
from engine.models.vit_config import VitConfig
from engine.ops.distance import unit
from engine.ops.jit import compile
from engine.protocols import Float32, Progress
from engine.shapes import BATCH_BUCKETS, bucket
from engine.vision.decode import Pixels
from engine.vision.decoders import MOST
from engine.vision.explain import rollout, saliency
from engine.vision.heatmap import HeatMap, heat_map
from engine.vision.io import ImageInput, read_image
from engine.vision.limits import ImageLimits
from engine.vision.preprocess import stacked
from engine.vision.template import TEMPLATE
from engine.vision.text_tower import TextTower
from engine.weights.checkpoint import Checkpoint

_BATCH_TOKENS = {"cpu": 2048}
"""Tokens of one batch at most, by platform; 16,384 on others."""


@dataclass(frozen=True)
class Label:
    label: str
    probability: float


Prediction = tuple[Label, ...]
"""The best classes of one image, best first."""


class ViT:
    """An image checkpoint, ready for images in any form (`io.ImageInput`). Safe to share between threads.

    Images are decoded and resized on the host while the model runs, and run in padded batches; an image has
    the same result in any batch within 1e-5.

    Example:
        >>> model = ViT(load_checkpoint(Path("vit-fashion")))
        >>> model.predict(["shoe.png"], top_k=1)[0]
        (Label(label='sneaker', probability=0.98),)
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        if not isinstance(checkpoint.config, VitConfig | ClipConfig) or checkpoint.preprocessing is None:
            raise UnsupportedModel(f"{checkpoint.name} reads text; use an image model")
        self.name = checkpoint.name
        self.preprocessing = checkpoint.preprocessing
        self.model_id = f"{checkpoint.name}:{checkpoint.quant}@{checkpoint.identity}"
        self._checkpoint = checkpoint
        self.config, self._params = _image_side(checkpoint.config, checkpoint.params)
        jit = jax.jit if checkpoint.quant == "f32" else compile
        self._programs = {
            run: jit(partial(run, config=self.config))
            for run in (_embedded, _classified, vit.logits, saliency, rollout)
        }
        self._device = threading.Lock()
        readable = isinstance(checkpoint.config, ClipConfig) and checkpoint.tokenizer is not None
        self._texts = TextTower(checkpoint) if readable else None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; empty for a model that only embeds."""
        return self.config.labels

    @property
    def reads_texts(self) -> bool:
        """Whether it is a CLIP or SigLIP, which chooses among any words."""
        return isinstance(self._checkpoint.config, ClipConfig)

    @property
    def judges_each(self) -> bool:
        """Whether the probability of one text alone means something: of SigLIP."""
        config = self._checkpoint.config
        return isinstance(config, ClipConfig) and config.sigmoid

    @property
    def dim(self) -> int:
        """Numbers of an embedding."""
        return self.config.features

    @property
    def texts(self) -> TextTower:
        """The text side of CLIP or SigLIP. Raises UnsupportedInput for other models, or BadCheckpoint."""
        if self._texts is not None:
            return self._texts
        if self.reads_texts:
            raise BadCheckpoint(f"{self._checkpoint.path}: has no tokenizer.json to read texts with")
        raise UnsupportedInput(f"{self.name} reads no texts, as CLIP and SigLIP do", param="model")

    def zero_shot(
        self,
        images: Sequence[ImageInput],
        labels: Sequence[str],
        *,
        template: str = TEMPLATE,
        limits: ImageLimits | None = None,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        """How well each of any `labels` fits each image, best first, by CLIP or SigLIP.

        `template` makes a sentence of a label in place of its `{}`. CLIP's probabilities are shares of the
        labels given, SigLIP's are of each label by itself. Raises as `predict`.
        """
        return self.predict(
            images, len(labels), labels=labels, template=template, limits=limits, progress=progress
        )

    def predict(
        self,
        images: Sequence[ImageInput],
        top_k: int = 5,
        *,
        labels: Sequence[str] | None = None,
        template: str = TEMPLATE,
        limits: ImageLimits | None = None,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        """The `top_k` likeliest classes of each image, in the order given: the model's, or of `labels`.

        Raises:
            ImageError: the first image that cannot be read.
            InvalidRequest: a `top_k` below 1, no labels or an empty one.
            UnsupportedInput: a model without classes, or labels for one that reads no texts.
        """
        found = []
        for prediction in self.stream(images, top_k, labels=labels, template=template, limits=limits):
            if isinstance(prediction, FileError):
                raise prediction
            found.append(prediction)
            if progress:
                progress(len(found), len(images))
        return found

    def stream(
        self,
        images: Iterable[ImageInput],
        top_k: int = 5,
        *,
        labels: Sequence[str] | None = None,
        template: str = TEMPLATE,
        limits: ImageLimits | None = None,
    ) -> Iterator[Prediction | FileError]:
        """As `predict`, one by one as batches are done; an image that cannot be read gives its error."""
        if labels is not None:
            names, judge = tuple(labels), self.judge(labels, template)
            rows = self._each(images, _embedded, limits)
        elif self.labels:
            names, judge, rows = self.labels, _as_is, self._each(images, _classified, limits)
        else:
            raise UnsupportedInput(f"{self.name} has no classes of its own{self._instead}", param="model")
        if top_k < 1:
            raise InvalidRequest(f"top_k must be at least 1, not {top_k}", param="top_k")
        for row in rows:
            yield row if isinstance(row, FileError) else _named(judge(row), names, top_k)

    def embed(
        self,
        images: Sequence[ImageInput],
        *,
        limits: ImageLimits | None = None,
        progress: Progress | None = None,
    ) -> Float32:
        """Unit vectors (len(images), dim), in the order given. Raises ImageError for an unreadable one."""
        vectors = np.zeros((len(images), self.dim), np.float32)
        for done, row in enumerate(self._each(images, _embedded, limits)):
            if isinstance(row, FileError):
                raise row
            vectors[done] = row
            if progress:
                progress(done + 1, len(images))
        return vectors

    def logits(self, pixels: Float32) -> Float32:
        """(n, labels) of prepared pixels, float32 (n, channels, height, width), all in one batch as it is.

        For those who prepare images themselves; compiles for each n. UnsupportedInput without classes.
        """
        if not self.labels:
            raise UnsupportedInput(f"{self.name} has no classes of its own{self._instead}", param="model")
        found: Float32 = self._run(vit.logits, pixels)
        return found

    def saliency(self, image: ImageInput, *, limits: ImageLimits | None = None) -> HeatMap:
        """Which pixels the likeliest class depends on, or the embedding of a model without classes."""
        pixels = read_image(image, limits=limits)
        seen, best = self._run(saliency, self._prepared(pixels))
        label = self.labels[int(best)] if self.labels else None
        return heat_map(pixels, seen, self.preprocessing, label)

    def attention_rollout(self, image: ImageInput, *, limits: ImageLimits | None = None) -> HeatMap:
        """Which patches the attention of all layers together has read, from the least read to the most."""
        pixels = read_image(image, limits=limits)
        seen = self._run(rollout, self._prepared(pixels))
        return heat_map(pixels, seen - seen.min(), self.preprocessing, None)

    def warm(self, progress: Progress | None = None) -> None:
        """Compiles the programs of each batch size, of maps and of texts ahead of the first request."""
        sizes = [size for size in BATCH_BUCKETS if size <= self._rows]
        usual = (_embedded, _classified) if self.labels else (_embedded,)
        work = [(run, size) for size in sizes for run in usual] + [(saliency, 1), (rollout, 1)]
        for done, (run, size) in enumerate(work, start=1):
            self._run(run, np.zeros((size, *self._shape), np.float32))
            if progress:
                progress(done, len(work))
        if self._texts is not None:
            self._texts.warm()

    @property
    def _shape(self) -> tuple[int, int, int]:
        height, width = self.preprocessing.output or self.config.image_size
        return self.config.channels, height, width

    @property
    def _rows(self) -> int:
        """Images of a batch at most."""
        _, height, width = self._shape
        tokens = (height // self.config.patch_size[0]) * (width // self.config.patch_size[1])
        fitting = _BATCH_TOKENS.get(jax.default_backend(), 16_384) // (tokens + self.config.prefix)
        return max(size for size in BATCH_BUCKETS if size <= max(fitting, 1))

    @property
    def _instead(self) -> str:
        return ": give labels to choose from" if self.reads_texts else ": it embeds images"

    def judge(self, labels: Sequence[str], template: str = TEMPLATE) -> Callable[[Float32], Float32]:
        """From an image's unit vector to the probability of each label, as `zero_shot` has them."""
        if "{}" not in template:
            raise InvalidRequest("template must hold {} where the label goes", param="template")
        if not labels or not all(label.strip() for label in labels):
            raise InvalidRequest("labels must be texts, none of them empty", param="labels")
        texts = self.texts.remembered([template.replace("{}", label) for label in labels])
        scale = float(np.exp(self._checkpoint.params["logit_scale"]))
        if "logit_bias" not in self._checkpoint.params:
            return lambda vector: _softmax(texts @ vector * scale)
        bias = float(self._checkpoint.params["logit_bias"])
        return lambda vector: _sigmoid(texts @ vector * scale + bias)

    def _prepared(self, image: Pixels) -> jax.Array:
        return jnp.asarray(self.preprocessing.prepare(image)[None])

    def _each(
        self, images: Iterable[ImageInput], run: "Run", limits: ImageLimits | None
    ) -> Iterator[Float32 | FileError]:
        """One row or error for each image; the next batch is decoded while one runs."""
        source = iter(images)
        with ThreadPoolExecutor(MOST, thread_name_prefix="decode") as pool:

            def begun() -> list[Future[Float32 | FileError]]:
                return [pool.submit(self._read, image, limits) for image in islice(source, self._rows)]

            waiting = begun()
            while waiting:
                following = begun()
                ready = [future.result() for future in waiting]
                rows = iter(self._run_batch([each for each in ready if isinstance(each, np.ndarray)], run))
                yield from (each if isinstance(each, FileError) else next(rows) for each in ready)
                waiting = following

    def _read(self, image: ImageInput, limits: ImageLimits | None) -> Float32 | FileError:
        try:
            return self.preprocessing.prepare(read_image(image, limits=limits))
        except FileError as error:
            return error

    def _run_batch(self, images: list[Float32], run: "Run") -> Float32:
        if not images:
            return np.zeros((0, 0), np.float32)
        batch = stacked(images, bucket(len(images), BATCH_BUCKETS))
        found = self._run(run, batch)
        rows: Float32 = found[: len(images)]
        return rows

    def _run(self, run: "Run", pixels: "jax.Array | Float32") -> Any:
        with self._device:
            return jax.device_get(self._programs[run](self._params, pixels=pixels))


def _image_side(config: VitConfig | ClipConfig, params: vit.Params) -> tuple[VitConfig, vit.Params]:
    return (config.vision, params["vision"]) if isinstance(config, ClipConfig) else (config, params)


def _named(probabilities: Float32, names: Sequence[str], top_k: int) -> Prediction:
    best = np.argsort(-probabilities, kind="stable")[:top_k]
    return tuple(Label(names[i], float(probabilities[i])) for i in best)


def _as_is(probabilities: Float32) -> Float32:
    return probabilities


def _sigmoid(logits: Float32) -> Float32:
    """By tanh, which overflows nowhere."""
    return ((1 + np.tanh(logits / 2)) / 2).astype(np.float32)


def _softmax(logits: Float32) -> Float32:
    shares = np.exp(logits - logits.max())
    found: Float32 = shares / shares.sum()
    return found


Run = Callable[..., Any]
"""A pure function of (params, pixels=..., config=...), one of those that `ViT` compiles."""


def _embedded(params: vit.Params, pixels: jax.Array, *, config: VitConfig) -> jax.Array:
    return unit(vit.features(params, config, pixels))


def _classified(params: vit.Params, pixels: jax.Array, *, config: VitConfig) -> jax.Array:
    return jax.nn.softmax(vit.logits(params, config, pixels), axis=-1)
