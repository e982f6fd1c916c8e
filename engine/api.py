"""`Engine`: one loaded model with everything it can do, from Python."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, overload

import jax
import jax.numpy as jnp

from engine.compile_cache import enable_compile_cache
from engine.embeddings.embedder import TextEmbedder
from engine.errors import InvalidRequest, UnsupportedInput
from engine.generate.loop import Generator
from engine.generate.model import KV_BYTES, DecoderStepModel
from engine.generate.request import Completion, GenerationRequest, Piece, SamplingParams
from engine.models import clip, decoder, encoder, vit
from engine.models.clip_config import ClipConfig
from engine.models.encoder_config import EncoderConfig
from engine.models.vit_config import VitConfig
from engine.private_folder import private_folder
from engine.protocols import EmbeddingCache, Float32, Progress, Role
from engine.registry import cache_dir, resolve
from engine.rerank.bi_encoder import rank_by_vectors
from engine.rerank.cross_encoder import CrossEncoder
from engine.rerank.late_interaction import LateInteraction
from engine.rerank.ranking import Ranking
from engine.text.prompt import check_length, encode_chat
from engine.text.template import ChatTemplate
from engine.text.tokenizer import Tokenizer
from engine.text.tool_calls import Tool
from engine.vision.io import ImageInput
from engine.vision.pipeline import Prediction, ViT
from engine.weights.checkpoint import Checkpoint, Kind, checkpoint_kind, load_checkpoint
from engine.weights.loading import is_packed
from engine.weights.packed_cache import PackedCache
from engine.weights.policy import Quant

DEFAULT_MAX_CONTEXT = 2048
SPECULATE = 3
"""By default: 2.3 times the tokens a second of CPU where a chat copies text, and 1.05 times in a story."""

_KINDS = {
    "decoder": "a chat model",
    "encoder": "an embedding model",
    "reranker": "a reranker",
    "vision": "an image model",
}

Inputs = jax.Array | Mapping[str, jax.Array]


class Engine:
    """A model from a checkpoint: it chats, embeds texts, ranks, or classifies and embeds images.

    Thread-safe. A chat model's device state belongs to one scheduler thread, started on first use;
    `close()` ends it.

        eng = Engine.load("smollm2-135m-instruct", quant="int8")
        print(eng.chat([{"role": "user", "content": "Hi"}], seed=7).text)
        vectors = Engine.load("all-minilm-l6-v2").embed(["a text"])     # (1, 384) unit float32
        best = Engine.load("bge-reranker-base").rerank("what?", texts).results[0].index
        labels = Engine.load("vit-fashion").classify(["shoe.png"], top_k=3)
        logits = eng.model(eng.params, tokens)                          # pure: jit, grad, vmap it
    """

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        *,
        max_slots: int = 4,
        max_context: int = DEFAULT_MAX_CONTEXT,
        max_queue: int = 64,
        kv_bytes: int = KV_BYTES,
        speculate: int = SPECULATE,
        cache: EmbeddingCache | None = None,
    ) -> None:
        self.name = name
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.params = checkpoint.params
        self._max_slots = max_slots
        self._max_context = max_context
        self._max_queue = max_queue
        self._kv_bytes = kv_bytes
        self._speculate = speculate
        self._cache = cache
        self._lock = threading.Lock()
        self._generator: Generator | None = None
        self._embedder: TextEmbedder | None = None
        self._reranker: CrossEncoder | LateInteraction | None = None
        self._vision: ViT | None = None

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        quant: Quant | None = None,
        max_slots: int = 4,
        max_context: int = DEFAULT_MAX_CONTEXT,
        max_queue: int = 64,
        kv_bytes: int = KV_BYTES,
        speculate: int = SPECULATE,
        cache: EmbeddingCache | None = None,
    ) -> "Engine":
        """Loads an alias, a folder in Hugging Face layout or one that `save_packed` made, or a .gguf file.

        Args:
            quant: weights in memory; by default int8 for chat models, f32 for the others, and whatever it
                is for packed ones.
            max_slots: chats that decode together.
            max_context: most tokens of one chat; at most what the model was made for.
            max_queue: chats that may wait for a slot.
            kv_bytes: memory for keys and values of all chats and of known prompts; when it is short,
                the chats that came last wait.
            speculate: most tokens guessed ahead from what a chat has said before, which never changes a
                reply; 0 for none. On a CPU with quantised weights only.
            cache: where embeddings are looked up first.

        Raises:
            ModelNotFound, UnsupportedModel, BadCheckpoint.
        """
        enable_compile_cache()
        found = resolve(name_or_path)
        if quant is None and not is_packed(found.path) and checkpoint_kind(found.path) == "decoder":
            quant = "int8"
        checkpoint = load_checkpoint(found.path, quant=quant, cache=_packed_cache())
        return cls(
            found.name,
            checkpoint,
            max_slots=max_slots,
            max_context=max_context,
            max_queue=max_queue,
            kv_bytes=kv_bytes,
            speculate=speculate,
            cache=cache,
        )

    @property
    def kind(self) -> Kind:
        return self.checkpoint.kind

    @property
    def max_context(self) -> int:
        """Most tokens of one text: prompt and reply of a chat, or one embedded text; 0 where none is read."""
        if isinstance(self.config, decoder.DecoderConfig):
            return min(self._max_context, self.config.max_context)
        if isinstance(self.config, ClipConfig):
            return self.config.text.max_positions
        return self.config.max_seq_length if isinstance(self.config, EncoderConfig) else 0

    def model(self, params: Any, inputs: Inputs) -> jax.Array:
        """The model as a pure function of its parameters.

        Args:
            params: `self.params`, or any pytree like it.
            inputs: token ids (batch, seq), or a mapping with `input_ids` and, for encoders and
                rerankers, `attention_mask` (1 = token, 0 = padding; all ones when left out) and
                `token_type_ids` (which text of a pair; all zeros when left out). Of an image model
                `pixel_values`, float32 (batch, channels, height, width), alone or in a mapping.

        Returns:
            Logits (batch, seq, vocab) of a decoder; last hidden states (batch, seq, embed) of an
            encoder; logits (batch, 1) of a cross-encoder; unit vectors (batch, seq, dim) of ColBERT;
            logits (batch, labels) of an image classifier, else features (batch, dim). Of CLIP and SigLIP
            features of what is given, and logits (images, texts) where both are.
        """
        if isinstance(self.config, ClipConfig):
            given = inputs if isinstance(inputs, Mapping) else {"pixel_values": inputs}
            return clip.forward(params, self.config, given.get("pixel_values"), given.get("input_ids"))
        if isinstance(self.config, VitConfig):
            pixels = jnp.asarray(inputs["pixel_values"] if isinstance(inputs, Mapping) else inputs)
            return (vit.logits if self.config.labels else vit.features)(params, self.config, pixels)
        ids = jnp.asarray(inputs["input_ids"] if isinstance(inputs, Mapping) else inputs)
        if isinstance(self.config, decoder.DecoderConfig):
            return decoder.forward(params, self.config, ids)
        others = inputs if isinstance(inputs, Mapping) else {}
        mask, types = others.get("attention_mask"), others.get("token_type_ids")
        mask = jnp.ones_like(ids) if mask is None else jnp.asarray(mask)
        if self.checkpoint.colbert is not None:
            return encoder.token_vectors(params, self.config, ids, mask)
        run = encoder.scores if self.kind == "reranker" else encoder.hidden_states
        return run(params, self.config, ids, mask, types)

    @property
    def tokenizer(self) -> Tokenizer:
        if self.checkpoint.tokenizer is None:
            raise UnsupportedInput(f"{self.name} has no tokenizer: it takes token ids only")
        return self.checkpoint.tokenizer

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text; nothing for a model without a tokenizer."""
        tokenizer = self.checkpoint.tokenizer
        return b"" if tokenizer is None else tokenizer.token_bytes(token_id)

    @property
    def generator(self) -> Generator:
        """The scheduler of this chat model. Raises UnsupportedInput for other models."""
        if not isinstance(self.config, decoder.DecoderConfig):
            raise UnsupportedInput(f"{self.name} is {_KINDS[self.kind]}: it cannot chat", param="model")
        with self._lock:
            if self._generator is None:
                model = DecoderStepModel(
                    self.params,
                    self.config,
                    max_slots=self._max_slots,
                    max_context=self.max_context,
                    kv_bytes=self._kv_bytes,
                    speculate=self._speculate,
                )
                self._generator = Generator(
                    model,
                    self.checkpoint.tokenizer,
                    max_slots=self._max_slots,
                    max_queue=self._max_queue,
                    eos_ids=self.checkpoint.eos_ids,
                )
            return self._generator

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool] = ()) -> list[int]:
        """Token ids of a chat, ready for the model's reply. Control tokens in user text stay text.

        Args:
            messages: `{"role", "content"}`; an assistant's may have `tool_calls`, a list of
                `{"function": {"name", "arguments": object}}`, and a `tool`'s is what one gave.
            tools: functions that the model is told of.

        Raises InvalidRequest, or ContextLengthExceeded for what could not fit however it is split.
        """
        texts = [messages, [(tool.name, tool.description, tool.parameters) for tool in tools]]
        check_length(texts, self.tokenizer, self.max_context, "messages")
        return encode_chat(self._template, self.tokenizer, messages, tools=tools)

    @overload
    def chat(
        self, messages: Sequence[Mapping[str, str]], *, stream: Literal[False] = False, **sampling: Any
    ) -> Completion: ...
    @overload
    def chat(
        self, messages: Sequence[Mapping[str, str]], *, stream: Literal[True], **sampling: Any
    ) -> Iterator[Piece]: ...
    def chat(
        self, messages: Sequence[Mapping[str, str]], *, stream: bool = False, **sampling: Any
    ) -> Completion | Iterator[Piece]:
        """The model's reply to a chat. `sampling` are the fields of `SamplingParams`, and `constraint`.

        With `stream=True` an iterator of pieces, whose last one says why it ended.
        """
        constraint = sampling.pop("constraint", None)
        prompt = tuple(self.chat_prompt(messages))
        request = GenerationRequest(prompt, _sampling(sampling), constraint=constraint)
        return self.generator.stream(request) if stream else self.generator.generate(request)

    def text_prompt(self, text: str) -> list[int]:
        """Token ids of a plain prompt. Raises ContextLengthExceeded, as `chat_prompt`."""
        check_length(text, self.tokenizer, self.max_context, "prompt")
        return self.tokenizer.encode(text, add_special=True)

    def generate(self, prompt: str | Sequence[int], **sampling: Any) -> Completion:
        """Goes on from a plain prompt, text or token ids, with no chat template."""
        ids = self.text_prompt(prompt) if isinstance(prompt, str) else prompt
        return self.generator.generate(GenerationRequest(tuple(ids), _sampling(sampling)))

    def complete(self, messages: Sequence[Mapping[str, str]], *, max_tokens: int) -> str:
        """The greedy reply as a string: what `engine.protocols.TextGenerator` asks."""
        return self.chat(messages, temperature=0.0, max_tokens=max_tokens).text

    @property
    def embedder(self) -> TextEmbedder:
        """The embedder of this embedding model. Raises UnsupportedInput for other models."""
        if self.kind != "encoder":
            raise UnsupportedInput(f"{self.name} is {_KINDS[self.kind]}: it cannot embed", param="model")
        with self._lock:
            if self._embedder is None:
                self._embedder = TextEmbedder(self.checkpoint, self._cache)
            return self._embedder

    def embed(
        self,
        inputs: Sequence[str] | Sequence[ImageInput],
        *,
        role: Role | None = None,
        progress: Progress | None = None,
    ) -> Float32:
        """Unit vectors (len(inputs), dim), in the order given: of texts, or of an image model's images.

        `role` says what texts are to a search, for models that want a prompt before each (E5, BGE).
        """
        if self.kind == "vision":
            return self.vision.embed(inputs, progress=progress)
        return self.embedder.embed(cast(Sequence[str], inputs), role=role, progress=progress)

    @property
    def vision(self) -> ViT:
        """What reads images in this image model. Raises UnsupportedInput for other models."""
        if self.kind != "vision":
            raise UnsupportedInput(f"{self.name} is {_KINDS[self.kind]}: it reads no images", param="model")
        with self._lock:
            if self._vision is None:
                self._vision = ViT(self.checkpoint)
            return self._vision

    def classify(
        self,
        images: Sequence[ImageInput],
        top_k: int = 5,
        *,
        labels: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        """The `top_k` likeliest classes of each image, best first; of any `labels` by CLIP and SigLIP.

        Images are paths, bytes of files, data URLs, uint8 arrays or Pillow's. Raises ImageError for one that
        cannot be read, UnsupportedInput for a model without classes.
        """
        return self.vision.predict(images, top_k, labels=labels, progress=progress)

    @property
    def reranker(self) -> CrossEncoder | LateInteraction:
        """What ranks in this reranker. Raises UnsupportedInput for other models."""
        if self.kind != "reranker":
            raise UnsupportedInput(f"{self.name} is {_KINDS[self.kind]}: it has no reranker", param="model")
        with self._lock:
            if self._reranker is None:
                colbert = self.checkpoint.colbert is not None
                self._reranker = (LateInteraction if colbert else CrossEncoder)(self.checkpoint)
            return self._reranker

    def rerank(self, query: str, documents: Sequence[str], *, top_n: int | None = None) -> Ranking:
        """The documents, or the best `top_n`, by how well they answer the query.

        A reranker reads each beside the query. An embedding model compares their vectors, and the
        ranking's `scoring` says so: what a vector search has found it cannot put into a better order.

        Raises:
            InvalidRequest: an empty query or too many documents.
            UnsupportedInput: a chat model.
        """
        if self.kind == "encoder":
            return rank_by_vectors(self.embedder, query, documents, top_n=top_n)
        return self.reranker.rank(query, documents, top_n=top_n)

    def warm(self, progress: Progress | None = None, context: int | None = None) -> None:
        """Compiles what requests will need, or reads it from the compile cache.

        `context`: for chats of up to so many tokens; by default what most chats need.
        """
        if self.kind == "decoder":
            self.generator.warm(progress, context)
        elif self.kind == "encoder":
            self.embedder.warm(progress)
        elif self.kind == "vision":
            self.vision.warm(progress)
        else:
            self.reranker.warm(progress)

    def close(self) -> None:
        """Ends all streams and the scheduler thread. Idempotent."""
        with self._lock:
            if self._generator is not None:
                self._generator.close()

    @cached_property
    def _template(self) -> ChatTemplate:
        def text(token_id: int | None) -> str:
            return "" if token_id is None else self.tokenizer.decode([token_id])

        ends = self.tokenizer.eos_ids
        return ChatTemplate(
            self.checkpoint.chat_template, text(self.tokenizer.bos_id), text(ends[0] if ends else None)
        )


def _packed_cache() -> PackedCache | None:
    folder = private_folder(cache_dir() / "packed")
    return None if folder is None else PackedCache(folder)


def _sampling(options: Mapping[str, Any]) -> SamplingParams:
    known = SamplingParams.__dataclass_fields__
    for name in options:
        if name not in known:
            raise InvalidRequest(
                f"there is no sampling parameter {name!r}; there are: {', '.join(known)}", param=name
            )
    given = dict(options)
    if isinstance(given.get("stop"), str):
        given["stop"] = (given["stop"],)
    if isinstance(given.get("logit_bias"), Mapping):
        given["logit_bias"] = tuple(given["logit_bias"].items())
    return SamplingParams(**given)
