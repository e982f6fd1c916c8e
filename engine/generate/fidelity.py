"""How far a decoder's decode steps are from float32 over a text: KL divergence and top-1 agreement."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engine.errors import InvalidRequest
from engine.generate.kv_pool import Pool, PoolShape, blocks_for, decode_attend
from engine.models import decoder
from engine.models.decoder import DecoderConfig, Params
from engine.ops.jit import compile
from engine.protocols import Progress

Logits: TypeAlias = jax.Array | NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """Means over the next-token distributions after each of `tokens` tokens.

    Attributes:
        kl: KL(exact || other) in nats; 0 where both are equal.
        top1: how often the likeliest token is the same, in [0, 1].
    """

    tokens: int
    kl: float
    top1: float


def exact_logits(params: Params, config: DecoderConfig, tokens: Sequence[int]) -> Iterator[jax.Array]:
    """Logits [vocab] after each token, the text read at once; exact where the weights are float32."""
    states = compile(decoder.hidden_states, static_argnums=1)(params, config, jnp.asarray([tokens]))
    head = compile(decoder.logits, static_argnums=1)
    for state in states[0]:
        yield head(params, config, state)


def decode_logits(params: Params, config: DecoderConfig, tokens: Sequence[int]) -> Iterator[jax.Array]:
    """Logits [vocab] after each token, read one by one through the decode steps that replies are made of."""
    config = config.at_length(len(tokens))
    blocks = 1 + blocks_for(len(tokens))
    pool = PoolShape(config.num_layers, config.num_kv_heads, config.head_dim, blocks).empty()
    table = jnp.arange(1, blocks)[None]

    def step(params: Params, pool: Pool, token: jax.Array, position: jax.Array) -> tuple[jax.Array, Pool]:
        attend = decode_attend(config, position, table)
        hidden, pool = decoder.run(params, config, token[:, None], position[:, None], attend, pool)
        return decoder.logits(params, config, hidden[:, 0])[0], pool

    run = compile(step, donate_argnums=1)
    for position, token in enumerate(tokens):
        logits, pool = run(params, pool, jnp.asarray([token]), jnp.asarray([position]))
        yield logits


def agreement(
    exact: Iterable[Logits], other: Iterable[Logits], progress: Progress | None = None
) -> Agreement:
    """Compares logits token by token, holding one of each at a time where they come from generators.

    `progress` counts tokens; its total is that count, as nobody knows how many come. Raises InvalidRequest
    when none do.
    """
    report = progress or (lambda done, total: None)
    found = []
    for pair in zip(exact, other, strict=True):
        found.append(tuple(map(float, _distance(*pair))))
        report(len(found), len(found))
    if not found:
        raise InvalidRequest("there is no text to compare on", param="text")
    kl, same = np.mean(found, axis=0)
    return Agreement(len(found), float(kl), float(same))


@jax.jit
def _distance(exact: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    """KL(exact || other), and whether both have one argmax."""
    p, q = (jax.nn.log_softmax(x.astype(jnp.float32)) for x in (exact, other))
    return jnp.sum(jnp.exp(p) * (p - q)), p.argmax() == q.argmax()
