"""The decoder as a `StepModel`: compiled programs over a donated pool of blocks, sampling on the device."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engine.generate import drawing
from engine.generate.drawing import DrawState
from engine.generate.kv_pool import (
    BLOCK,
    SCRATCH,
    Pool,
    PoolShape,
    blocks_for,
    decode_attend,
    lengths_up_to,
    prefill_attend,
)
from engine.generate.programs import Key, Program, Programs, abstract
from engine.generate.sequence import Feed
from engine.generate.sequence import Sequence as SequenceState
from engine.generate.speculate import NgramDrafter
from engine.generate.step_model import NO_TOKEN, Opening, Step, Table
from engine.models import decoder
from engine.models.decoder import DecoderConfig, Params
from engine.ops.dispatch import NATIVE_COLUMNS, NATIVE_ELEMENTS
from engine.ops.jit import compile
from engine.ops.paged_attention import walks_tables
from engine.ops.quant import QTensor
from engine.protocols import Progress
from engine.shapes import bucket

ROWS = (1, 4, 8, 16)
"""Rows of a decode program. Without 2: a step of two rows costs what a step of four does (51 and 54 ms
in int8). No more than the native products take: larger batches run as several programs."""
GPU_ROWS = (1, 4, 8, 16, 32, 64)
"""Of a GPU, which reads the weights once for all of them."""
FIRST_CELLS, CELL = (64, 128), 128
"""A prompt is cut at fixed positions: at these, then every CELL. So the program that computes a position,
and with it every bit of its keys and values, depends on the position and the tokens before it alone:
not on the load, nor on what the prefix tree knew. On a CPU a program costs some 50 ms and 1 ms a token;
256 at a time would be 15 % faster on long prompts, and twice the wait beside running streams."""
WARM_CONTEXT = 512
"""`warm` prepares for sequences up to this length unless told otherwise; longer ones compile on the way."""
KV_BYTES = 256 * 2**20
"""Default memory of the pool; one sequence of the whole context always fits."""


class DecoderStepModel:
    """Satisfies `StepModel` for one decoder. Its methods belong to one thread, `warm` excepted.

    Args:
        params, config: as `engine.weights` loads them; the weights are not copied.
        max_slots: most sequences at once; `warm` compiles for each batch size up to it.
        max_context: shorter than the model's own context, or None for that.
        kv_bytes: memory for keys and values, but always enough for one whole context.
        speculate: most tokens guessed ahead, for paths that hold the bits of a step in any batch; 0
            for none.

    Results are those of `decoder.forward` up to float32 rounding. On a CPU with native kernels and int8
    or int4 weights, a request gives the same bits alone, in any batch, after any other requests and
    after a preemption. XLA's own matrix products sum in another order for another number of rows, so
    float32 weights, `TARSIA_OPS=xla` and other devices do not give that.
    """

    def __init__(
        self,
        params: Params,
        config: DecoderConfig,
        *,
        max_slots: int = 4,
        max_context: int | None = None,
        kv_bytes: int = KV_BYTES,
        speculate: int = 0,
    ) -> None:
        self._leaves, self._tree = jax.tree.flatten(params)
        self._context = min(max_context or config.max_context, config.max_context)
        # One RoPE for all sequences: cached keys cannot be rotated again when one outgrows a length.
        self._config = config.at_length(self._context)
        self._lengths = lengths_up_to(self._context)
        self._max_slots = max_slots
        whole = blocks_for(self._context)
        narrow = any(leaf.dtype == jnp.bfloat16 for leaf in self._leaves)
        dtype = jnp.bfloat16 if narrow else jnp.float32
        one = PoolShape(config.num_layers, config.num_kv_heads, config.head_dim, 1, dtype)
        self._blocks = max(whole, min(kv_bytes // one.block_bytes, whole * max_slots))
        self._shape = replace(one, blocks=1 + self._blocks)
        self._rows = ROWS if jax.default_backend() == "cpu" else GPU_ROWS
        self._programs = Programs(self._build)
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._lost = False
        self._sequences: dict[int, SequenceState] = {}
        self._lookahead = speculate if speculate and holds_bits(params, config) else 0
        self.drafted = self.accepted = 0

    @property
    def max_context(self) -> int:
        return self._context

    @property
    def vocab_size(self) -> int:
        return self._config.vocab_size

    @property
    def compile_misses(self) -> int:
        return self._programs.misses

    @property
    def block_size(self) -> int:
        return BLOCK

    @property
    def blocks(self) -> int:
        return self._blocks

    @property
    def lookahead(self) -> int:
        return self._lookahead

    @property
    def lost(self) -> bool:
        return self._lost

    def boundary(self, tokens: int) -> int:
        first = FIRST_CELLS[0]
        return tokens // first * first if tokens < FIRST_CELLS[-1] else tokens // CELL * CELL

    def start(self, slot: int, opening: Opening) -> None:
        state = DrawState.of(opening, self.vocab_size)
        tokens = (*opening.prompt, *opening.generated)
        drafter = NgramDrafter(tokens) if self._lookahead else None
        self._sequences[slot] = SequenceState(state, list(opening.generated), drafter)

    def prefill(self, slot: int, table: Table, start: int) -> Step:
        sequence = self._sequences[slot]
        prompt = sequence.state.opening.prompt
        size = _cell(start)
        piece = prompt[start : start + size]
        tokens = np.zeros((1, size), np.int32)
        tokens[0, : len(piece)] = piece
        length = bucket(start + size, self._lengths)
        blocks = _padded(table, length)
        last = np.int32(len(piece) - 1)
        best, logits = self._run(("prefill", size, length), tokens, np.int32(start), last, blocks)
        if start + len(piece) < len(prompt):
            return Step(len(piece))
        sequence.position = len(prompt)
        if sequence.replay:
            return Step(len(piece))
        drawn = drawing.draw(self._programs, {0: sequence.state}, best, logits)[0]
        sequence.advance(drawn)
        return Step(len(piece), (drawn,))

    def decode(self, batch: Sequence[tuple[int, Table]]) -> list[Step]:
        steps: list[Step] = []
        for first in range(0, len(batch), self._rows[-1]):
            steps += self._decode_rows(batch[first : first + self._rows[-1]])
        return steps

    def release(self, slot: int) -> None:
        self._sequences.pop(slot, None)

    def reset(self) -> None:
        self._sequences.clear()
        self._pool, self._lost = None, False

    def warm(self, progress: Progress | None = None, context: int | None = None) -> None:
        self._programs.warm(self._usual(context or WARM_CONTEXT), self._rehearse, progress)

    def _decode_rows(self, batch: Sequence[tuple[int, Table]]) -> list[Step]:
        feeds = self._feeds(batch)
        rows = bucket(feeds[-1].row + len(feeds[-1].tokens), self._rows)
        length = self._decode_length(max(feed.end for feed in feeds))
        best, logits = self._run(("decode", rows, length), *_arrays(feeds, rows, length))
        due = {row: state for feed in feeds for row, state in feed.due().items()}
        drawn = drawing.draw(self._programs, due, best, logits)
        steps = [feed.take(drawn) for feed in feeds]
        for feed, step in zip(feeds, steps, strict=True):
            if len(step.drawn) and len(feed.tokens) > 1:
                self.drafted += len(feed.tokens) - 1
                self.accepted += len(step.drawn) - 1
        return steps

    def _feeds(self, batch: Sequence[tuple[int, Table]]) -> list[Feed]:
        """A token of each sequence, and more of some while there are rows that cost little.

        A program of four rows costs 1.3 times one of a single row; where the batch does not fill its
        program, the other rows cost nothing.
        """
        spare = bucket(max(len(batch), 2), self._rows) - len(batch)
        feeds: list[Feed] = []
        row = 0
        for slot, table in batch:
            sequence = self._sequences[slot]
            room = min(len(table) * BLOCK, self._context) - sequence.position - 1
            most = spare if sequence.replay else min(spare, self._lookahead)
            tokens = sequence.feed(max(min(most, room), 0))
            feeds.append(Feed(sequence, table, tokens, row))
            row += len(tokens)
            spare -= len(tokens) - 1
        return feeds

    def _decode_length(self, needed: int) -> int:
        """Positions that the tables of a decode program cover: the kernel's cost does not depend on it."""
        return self._lengths[-1] if walks_tables() else bucket(needed, self._lengths)

    def _run(self, key: Key, *args: Any) -> tuple[NDArray[np.int32], jax.Array]:
        """Runs a program over the pool; if it fails, no pool is left rather than a dead one."""
        program = self._programs[key]
        with self._lock:
            pool, self._pool = self._pool or self._shape.empty(), None
            self._lost = True
            greedy, logits, after = program(self._leaves, pool, *args)
            best = np.asarray(greedy)
            self._pool, self._lost = after, False
        return best, logits

    def _usual(self, context: int) -> Iterator[Key]:
        lengths = [length for length in self._lengths if length <= context] or self._lengths[:1]
        most = min(max(self._max_slots, 2 if self._lookahead else 1), self._rows[-1])
        rows = [size for size in self._rows if size < most] + [bucket(most, self._rows)]
        yield ("prefill", FIRST_CELLS[0], lengths[0])
        yield from (("prefill", CELL, length) for length in lengths if length > FIRST_CELLS[-1])
        for count in rows:
            decoded = {self._decode_length(length) for length in lengths}
            yield from (("decode", count, length) for length in sorted(decoded))
            yield from drawing.usual(count, self.vocab_size)

    def _rehearse(self, key: Key, program: Program) -> None:
        """Runs a program once on zeros; what it writes goes to the scratch block."""
        name, size, length = key
        if name in drawing.PROGRAMS:
            jax.device_get(jax.tree.leaves(drawing.rehearse(key, program))[0])
            return
        blocks = np.full(length // BLOCK, SCRATCH, np.int32)
        zeros, zero = np.zeros(size, np.int32), np.int32(0)
        if name == "prefill":
            self._run(key, zeros[None], zero, zero, blocks)
        else:
            self._run(key, zeros, zeros, np.tile(blocks, (size, 1)))

    def _build(self, key: Key) -> Program:
        name, size, length = key
        if name in drawing.PROGRAMS:
            return drawing.build(key)
        pool, scalar, blocks = self._shape.abstract(), abstract((), jnp.int32), length // BLOCK
        ints, table = abstract((size,), jnp.int32), abstract((blocks,), jnp.int32)
        if name == "prefill":
            tokens, jitted = abstract((1, size), jnp.int32), compile(self._prefill, donate_argnums=1)
            return jitted.lower(self._leaves, pool, tokens, scalar, scalar, table).compile()
        tables = abstract((size, blocks), jnp.int32)
        jitted = compile(self._decode, donate_argnums=1)
        return jitted.lower(self._leaves, pool, ints, ints, tables).compile()

    def _prefill(
        self,
        leaves: list[jax.Array],
        pool: Pool,
        tokens: jax.Array,
        start: jax.Array,
        last: jax.Array,
        table: jax.Array,
    ) -> tuple[jax.Array, jax.Array, Pool]:
        params = jax.tree.unflatten(self._tree, leaves)
        positions = start + jnp.arange(tokens.shape[1])[None]
        attend = prefill_attend(self._config, start, table)
        hidden, pool = decoder.run(params, self._config, tokens, positions, attend, pool)
        hidden = jax.lax.dynamic_slice_in_dim(hidden[0], last, 1)
        logits = decoder.logits(params, self._config, hidden)
        return _best(logits), logits, pool

    def _decode(
        self,
        leaves: list[jax.Array],
        pool: Pool,
        tokens: jax.Array,
        positions: jax.Array,
        tables: jax.Array,
    ) -> tuple[jax.Array, jax.Array, Pool]:
        params = jax.tree.unflatten(self._tree, leaves)
        attend = decode_attend(self._config, positions, tables)
        at = positions[:, None]
        hidden, pool = decoder.run(params, self._config, tokens[:, None], at, attend, pool)
        logits = decoder.logits(params, self._config, hidden[:, 0])
        return _best(logits), logits, pool


def _best(logits: jax.Array) -> jax.Array:
    """The argmax of each row, int32, or NO_TOKEN where the logits are not finite."""
    finite = jnp.isfinite(logits.max(axis=-1))
    return jnp.where(finite, jnp.argmax(logits, axis=-1), NO_TOKEN).astype(jnp.int32)


def _cell(start: int) -> int:
    """How many tokens the program takes that begins at the boundary `start`."""
    return FIRST_CELLS[0] if start < FIRST_CELLS[-1] else CELL


def _padded(table: Table, length: int) -> NDArray[np.int32]:
    """The first `length` positions' blocks, with scratch blocks after the table's end."""
    blocks = np.full(length // BLOCK, SCRATCH, np.int32)
    known = table[: length // BLOCK]
    blocks[: len(known)] = known
    return blocks


def _arrays(feeds: Sequence[Feed], rows: int, length: int) -> tuple[NDArray[np.int32], ...]:
    """Tokens [rows], positions [rows] and tables [rows, length / BLOCK] of a decode program."""
    tokens, positions = np.zeros((2, rows), np.int32)
    tables = np.full((rows, length // BLOCK), SCRATCH, np.int32)
    for feed in feeds:
        own = slice(feed.row, feed.row + len(feed.tokens))
        tokens[own] = feed.tokens
        positions[own] = np.arange(feed.sequence.position, feed.end)
        tables[own] = _padded(feed.table, length)
    return tokens, positions, tables


def holds_bits(params: Params, config: DecoderConfig) -> bool:
    """Whether a row of a decode step has the same bits in every batch: all its sums run natively."""
    norms = config.head_dim if config.qk_norm else config.hidden_size
    if (
        config.attn_softcap is not None
        or not walks_tables()
        or min(norms, config.hidden_size) < NATIVE_COLUMNS
    ):
        return False
    leaves = jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, QTensor))
    matrices = [leaf for leaf in leaves if len(leaf.shape) > 1]
    return all(isinstance(leaf, QTensor) and np.prod(leaf.shape) >= NATIVE_ELEMENTS for leaf in matrices)
