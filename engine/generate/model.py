"""The decoder as a `StepModel`: compiled programs over donated slot caches, sampling on the device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engine.generate import sampler
from engine.generate.kv_slots import (
    SLOTS,
    Cache,
    CacheShape,
    Rows,
    bucket,
    decode_attend,
    lengths_up_to,
    prefill_attend,
    warm_moves,
)
from engine.generate.programs import Key, Program, Programs, abstract
from engine.generate.request import SamplingParams
from engine.generate.step_model import NO_TOKEN
from engine.models import decoder
from engine.models.decoder import DecoderConfig, Params
from engine.ops.jit import compile
from engine.protocols import Progress

SHORT, CHUNKS = 16, (64, 256)
"""Prompt tokens of one prefill program: SHORT for a prompt that fits it, else one of CHUNKS; cache
lengths are multiples of the smaller, so a chunk always fits. On a CPU a program costs some 50 ms and
1 ms a token, so 512 gains nothing over 256, and a finer grid saves less than the seconds that each
more program takes to compile at start."""
WARM_CONTEXT = 512
"""`warm` prepares for sequences up to this length; longer ones compile on the way."""

_GREEDY = SamplingParams(temperature=0)


@dataclass
class _Sequence:
    prompt: tuple[int, ...]
    sampling: SamplingParams
    key: NDArray[np.uint32]
    in_prompt: NDArray[np.bool_] | None
    counts: NDArray[np.int32] | None
    generated: int = 0
    last: int = 0
    position: int = 0


class DecoderStepModel:
    """Satisfies `StepModel` for one decoder. Its methods belong to one thread, `warm` excepted.

    Args:
        params, config: as `engine.weights` loads them; the weights are not copied.
        max_slots: most sequences at once; `warm` compiles for each batch size up to it.
        max_context: shorter than the model's own context, or None for that.

    Results are those of `decoder.forward` up to float32 rounding, which differs with the batch size
    and the chunk size: XLA's matrix products sum in another order.
    """

    def __init__(
        self, params: Params, config: DecoderConfig, *, max_slots: int = 4, max_context: int | None = None
    ) -> None:
        self._leaves, self._tree = jax.tree.flatten(params)
        self._context = min(max_context or config.max_context, config.max_context)
        # One RoPE for all sequences: cached keys cannot be rotated again when one outgrows a length.
        self._config = config.at_length(self._context)
        self._lengths = lengths_up_to(self._context)
        self._max_slots = max_slots
        self._shape = CacheShape(config.num_layers, config.num_kv_heads, config.head_dim)
        self._programs = Programs(self._build)
        self._rows = Rows(self._shape, self._lengths)
        self._prompt_cache: Cache = []
        self._sequences: dict[int, _Sequence] = {}

    @property
    def max_context(self) -> int:
        return self._context

    @property
    def vocab_size(self) -> int:
        return self._config.vocab_size

    @property
    def compile_misses(self) -> int:
        return self._programs.misses

    def start(self, slot: int, prompt: Sequence[int], sampling: SamplingParams, seed: int) -> None:
        in_prompt = counts = None
        if sampler.has_penalties(sampling):
            in_prompt, counts = np.zeros(self.vocab_size, bool), np.zeros(self.vocab_size, np.int32)
            in_prompt[list(prompt)] = True
        self._sequences[slot] = _Sequence(tuple(prompt), sampling, sampler.key_of(seed), in_prompt, counts)

    def prefill(self, slot: int, start: int, limit: int) -> tuple[int, int | None]:
        sequence = self._sequences[slot]
        total = len(sequence.prompt)
        length = bucket(total, self._lengths)
        size = _chunk(total, start, limit, length)
        tokens = np.zeros((1, size), np.int32)
        piece = sequence.prompt[start : start + size]
        tokens[0, : len(piece)] = piece
        greedy, logits, self._prompt_cache = self._programs["prefill", size, length](
            self._leaves,
            self._take_prompt_cache(start, length),
            tokens,
            np.int32(start),
            np.int32(len(piece) - 1),
        )
        if start + len(piece) < total:
            return len(piece), None
        self._rows.insert(slot, self._prompt_cache)
        sequence.position = total
        return len(piece), self._next_tokens([sequence], [0], greedy, logits)[0]

    def decode(self, slots: Sequence[int]) -> list[int]:
        sequences = [self._sequences[slot] for slot in slots]
        self._rows.fit(1 + max(sequence.position for sequence in sequences))
        rows = [self._rows.row(slot) for slot in slots]
        tokens, positions = np.zeros((2, self._rows.rows), np.int32)
        for row, sequence in zip(rows, sequences, strict=True):
            tokens[row], positions[row] = sequence.last, sequence.position
        program = self._programs["decode", self._rows.rows, self._rows.length]
        greedy, logits, self._rows.cache = program(self._leaves, self._rows.cache, tokens, positions)
        for sequence in sequences:
            sequence.position += 1
        return self._next_tokens(sequences, rows, greedy, logits)

    def release(self, slot: int) -> None:
        self._sequences.pop(slot, None)
        self._rows.remove(slot)

    def reset(self) -> None:
        self._sequences.clear()
        self._rows.clear()
        self._prompt_cache = []

    def warm(self, progress: Progress | None = None) -> None:
        lengths = [length for length in self._lengths if length <= WARM_CONTEXT] or self._lengths[:1]
        rows = [size for size in SLOTS if size < self._max_slots] + [bucket(self._max_slots, SLOTS)]
        self._programs.warm(self._usual(rows, lengths), self._rehearse, progress)
        warm_moves(self._shape, rows, lengths)

    def _rehearse(self, key: Key, program: Program) -> None:
        """Runs a program once on zeros."""
        name, first, second = key
        result: Any
        if name == "sample":
            idle = sampler.RowSampling.of([(_GREEDY, sampler.key_of(0), 0)] * first)
            result = program(jnp.zeros((first, second)), idle)
        elif name == "prefill":
            tokens, zero = np.zeros((1, first), np.int32), np.int32(0)
            result, *_ = program(self._leaves, self._shape.empty(1, second), tokens, zero, zero)
        else:
            zeros = np.zeros(first, np.int32)
            result, *_ = program(self._leaves, self._shape.empty(first, second), zeros, zeros)
        result.block_until_ready()

    def _take_prompt_cache(self, start: int, length: int) -> Cache:
        """The one-row cache, to be donated: if the program fails, none is left, not a dead one."""
        cache, self._prompt_cache = self._prompt_cache, []
        if start == 0 and (not cache or cache[0][0].shape[3] != length):
            return self._shape.empty(1, length)
        return cache

    def _usual(self, rows: Sequence[int], lengths: Sequence[int]) -> Iterator[Key]:
        yield ("prefill", SHORT, lengths[0])
        for length in lengths:
            yield from (("prefill", size, length) for size in CHUNKS if size <= length)
            yield from (("decode", count, length) for count in rows)
        yield from (("sample", count, self.vocab_size) for count in rows)

    def _next_tokens(
        self, sequences: list[_Sequence], rows: list[int], greedy: jax.Array, logits: jax.Array
    ) -> list[int]:
        """The token of each sequence, whose logits are in `rows`, and the bookkeeping for the next."""
        best = np.asarray(greedy)
        drawn = best
        if not all(sampler.is_greedy(sequence.sampling) for sequence in sequences):
            drawn = self._sample(dict(zip(rows, sequences, strict=True)), logits)
        tokens = []
        for row, sequence in zip(rows, sequences, strict=True):
            token = int(drawn[row]) if best[row] != NO_TOKEN else NO_TOKEN
            sequence.last = max(token, 0)
            sequence.generated += 1
            if sequence.counts is not None:
                sequence.counts[sequence.last] += 1
            tokens.append(token)
        return tokens

    def _sample(self, sequences: dict[int, _Sequence], logits: jax.Array) -> NDArray[np.int32]:
        count = logits.shape[0]
        idle = (_GREEDY, sampler.key_of(0), 0)
        of_rows = [sequences.get(row) for row in range(count)]
        batch = sampler.RowSampling.of([(s.sampling, s.key, s.generated) if s else idle for s in of_rows])
        if not any(s is not None and s.counts is not None for s in of_rows):
            return np.asarray(self._programs["sample", count, self.vocab_size](logits, batch))
        in_prompt = np.zeros((count, self.vocab_size), bool)
        counts = np.zeros((count, self.vocab_size), np.int32)
        for row, sequence in sequences.items():
            if sequence.in_prompt is not None and sequence.counts is not None:
                in_prompt[row], counts[row] = sequence.in_prompt, sequence.counts
        program = self._programs["sample_penalised", count, self.vocab_size]
        return np.asarray(program(logits, batch, in_prompt, counts))

    def _build(self, key: Key) -> Program:
        name, first, second = key
        ints = abstract((first,), jnp.int32)
        scalar = abstract((), jnp.int32)
        if name == "prefill":
            tokens = abstract((1, first), jnp.int32)
            jitted = compile(self._prefill, donate_argnums=1)
            cache = self._shape.abstract(1, second)
            return jitted.lower(self._leaves, cache, tokens, scalar, scalar).compile()
        if name == "decode":
            jitted = compile(self._decode, donate_argnums=1)
            return jitted.lower(self._leaves, self._shape.abstract(first, second), ints, ints).compile()
        logits = abstract((first, second), jnp.float32)
        rows = sampler.RowSampling.of([(_GREEDY, sampler.key_of(0), 0)] * first)
        if name == "sample":
            return compile(sampler.sample).lower(logits, rows).compile()
        seen = abstract((first, second), jnp.bool_)
        counts = abstract((first, second), jnp.int32)
        return compile(sampler.sample_penalised).lower(logits, rows, seen, counts).compile()

    def _prefill(
        self, leaves: list[jax.Array], cache: Cache, tokens: jax.Array, start: jax.Array, last: jax.Array
    ) -> tuple[jax.Array, jax.Array, Cache]:
        params = jax.tree.unflatten(self._tree, leaves)
        positions = start + jnp.arange(tokens.shape[1])[None]
        attend = prefill_attend(self._config, start)
        hidden, cache = decoder.run(params, self._config, tokens, positions, attend, cache)
        hidden = jax.lax.dynamic_slice_in_dim(hidden[0], last, 1)
        logits = decoder.logits(params, self._config, hidden)
        return _best(logits), logits, cache

    def _decode(
        self, leaves: list[jax.Array], cache: Cache, tokens: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, jax.Array, Cache]:
        params = jax.tree.unflatten(self._tree, leaves)
        at = positions[:, None]
        attend = decode_attend(self._config, positions)
        hidden, cache = decoder.run(params, self._config, tokens[:, None], at, attend, cache)
        logits = decoder.logits(params, self._config, hidden[:, 0])
        return _best(logits), logits, cache


def _best(logits: jax.Array) -> jax.Array:
    """The argmax of each row, int32, or NO_TOKEN where the logits are not finite."""
    finite = jnp.isfinite(logits.max(axis=-1))
    return jnp.where(finite, jnp.argmax(logits, axis=-1), NO_TOKEN).astype(jnp.int32)


def _chunk(total: int, start: int, limit: int, length: int) -> int:
    """The program size for the next chunk of a prompt: the smallest that ends it in at most two."""
    if total <= SHORT:
        return SHORT
    fitting = [size for size in CHUNKS if size <= max(min(limit, length - start), CHUNKS[0])]
    return next((size for size in fitting if size * 2 >= total - start), fitting[-1])
