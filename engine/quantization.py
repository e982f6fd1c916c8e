"""What quantising a model costs: error of each matrix, bytes, and how far its output moves on a text."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from engine.embeddings.embedder import TextEmbedder
from engine.errors import InvalidRequest, UnsupportedInput
from engine.generate.fidelity import Agreement, agreement, decode_logits, exact_logits
from engine.models.decoder_config import DecoderConfig
from engine.ops.quant import QTensor, dequantize
from engine.protocols import Progress
from engine.weights.checkpoint import Checkpoint
from engine.weights.policy import Quant, form_of
from engine.weights.tree import Leaf, flatten

SAMPLE_TEXT = """The lighthouse stands on a rock two miles from the harbour. Its lamp was lit for the first
time in 1871, and until the war a keeper lived there with his family. He wound the clockwork every four hours,
wrote down the weather, and rowed to the village on Saturdays for bread, oil and letters. When electricity
came, the clockwork was taken out and the keeper went ashore. The light is now watched by a computer in the
capital, which calls the coast guard when something breaks. In winter the waves reach the lowest window, and
after a storm fishermen find the door blocked with seaweed. Children believe that the lamp answers when they
wave a torch at it. A school wrote to the ministry to ask whether this was true. The answer was polite and
long: the lamp turns once in twenty seconds, so that anyone who waits will think himself seen."""


@dataclass(frozen=True)
class MatrixError:
    """One matrix: its form, bytes, and |exact - quantised| / |exact| by Euclidean norms."""

    name: str
    form: Quant
    nbytes: int
    error: float


@dataclass(frozen=True)
class Closeness:
    """Cosines of an encoder's vectors with those of its float32 self, over the lines of a text."""

    texts: int
    mean: float
    least: float


@dataclass(frozen=True)
class QuantReport:
    """What was found.

    Attributes:
        exact_bytes, bytes: of all parameters in float32, and as they are now.
        matrices: the quantised ones, worst first.
        layers: error of all quantised matrices of a layer together, worst first.
        outputs: None for rerankers, whose output is not compared.
    """

    exact_bytes: int
    bytes: int
    matrices: tuple[MatrixError, ...]
    layers: tuple[tuple[str, float], ...]
    outputs: Agreement | Closeness | None


def quantization_report(
    exact: Checkpoint, small: Checkpoint, text: str, *, tokens: int = 256, progress: Progress | None = None
) -> QuantReport:
    """Compares a model with its float32 self.

    Args:
        exact: loaded with quant="f32".
        text: what decoders read, up to `tokens` tokens; of encoders each line is a text.
        progress: counts tokens or texts.

    Raises UnsupportedInput for a model without a tokenizer, InvalidRequest for an empty text.
    """
    pairs = list(_pairs(exact.params, small.params))
    matrices = [
        MatrixError(name, form_of(now), now.nbytes, _ratio(difference, whole))
        for name, now, difference, whole in pairs
    ]
    leaves = flatten(small.params).values()
    return QuantReport(
        exact_bytes=sum(leaf.nbytes for leaf in flatten(exact.params).values()),
        bytes=sum(leaf.nbytes for leaf in leaves),
        matrices=tuple(sorted(matrices, key=lambda matrix: -matrix.error)),
        layers=_by_layer(pairs),
        outputs=_outputs(exact, small, text, tokens, progress),
    )


def _pairs(exact: Mapping[str, Any], small: Mapping[str, Any]) -> Iterator[tuple[str, Leaf, float, float]]:
    """(name, quantised, squared norm of the difference, squared norm) of each matrix that is not float32."""
    whole = flatten(exact)
    for name, leaf in flatten(small).items():
        if form_of(leaf) != "f32":
            now = dequantize(leaf) if isinstance(leaf, QTensor) else leaf.astype(jnp.float32)
            before = np.asarray(whole[name])
            yield name, leaf, float(np.square(before - np.asarray(now)).sum()), float(np.square(before).sum())


def _ratio(difference: float, whole: float) -> float:
    return math.sqrt(difference / whole) if whole else 0.0


def _by_layer(pairs: list[tuple[str, Leaf, float, float]]) -> tuple[tuple[str, float], ...]:
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, _, difference, whole in pairs:
        layer = ".".join(name.split(".")[:2]) if name.startswith("layers.") else name
        sums[layer][0] += difference
        sums[layer][1] += whole
    errors = ((layer, _ratio(*both)) for layer, both in sums.items())
    return tuple(sorted(errors, key=lambda pair: -pair[1]))


def _outputs(
    exact: Checkpoint, small: Checkpoint, text: str, tokens: int, progress: Progress | None
) -> Agreement | Closeness | None:
    if exact.tokenizer is None:
        raise UnsupportedInput(f"{exact.name} has no tokenizer: it cannot read a text")
    if isinstance(exact.config, DecoderConfig) and isinstance(small.config, DecoderConfig):
        ids = exact.tokenizer.encode(text)[: min(tokens, exact.config.max_context)]
        if not ids:
            raise InvalidRequest("there is no text to compare on", param="text")
        pair = (exact_logits(exact.params, exact.config, ids), decode_logits(small.params, small.config, ids))
        report = progress or (lambda done, total: None)
        return agreement(*pair, lambda done, total: report(done, len(ids)))
    if exact.kind != "encoder":
        return None
    return _closeness(exact, small, [line for line in text.splitlines() if line.strip()], progress)


def _closeness(
    exact: Checkpoint, small: Checkpoint, lines: list[str], progress: Progress | None
) -> Closeness:
    if not lines:
        raise InvalidRequest("there is no text to compare on", param="text")
    before = TextEmbedder(exact).embed(lines)
    cosines = np.sum(before * TextEmbedder(small).embed(lines, progress=progress), axis=-1)
    return Closeness(len(lines), float(cosines.mean()), float(cosines.min()))
