"""How far quantised decode steps are from float32: KL divergence and top-1 agreement, token by token.

SmolLM2 135M reads a text one token at a time, through the decode path with its native kernels; the reference
is the same weights in float32 on the portable path. llama.cpp's formats stand beside ours.
Run: `python -m experiments.bench.fidelity [--tokens N]`.
"""

import argparse
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from engine.generate.kv_pool import PoolShape, blocks_for, decode_attend
from engine.models import decoder
from engine.ops.jit import compile
from engine.registry import resolve
from engine.weights.checkpoint import load_checkpoint
from experiments.bench.decode import MODEL, llama_logits

TEXT = """The lighthouse stands on a rock two miles from the harbour. Its lamp was lit for the first time in
1871, and until the war a keeper lived there with his family. He wound the clockwork every four hours, wrote
down the weather, and rowed to the village on Saturdays for bread, oil and letters. When electricity came,
the clockwork was taken out and the keeper went ashore. The light is now watched by a computer in the
capital, which calls the coast guard when something breaks. In winter the waves reach the lowest window, and
after a storm fishermen find the door blocked with seaweed. Children believe that the lamp answers when they
wave a torch at it. A school wrote to the ministry to ask whether this was true. The answer was polite and
long: the lamp turns once in twenty seconds, so that anyone who waits will think himself seen."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=180)
    options = parser.parse_args()
    tokenizer = load_checkpoint(resolve(MODEL).path, quant="int4").tokenizer
    tokens = list(tokenizer.encode(TEXT))[: options.tokens]
    os.environ["TARSIA_OPS"] = "xla"
    exact = stepwise("f32", tokens)
    report("int8, portable", stepwise("int8", tokens), exact)
    os.environ["TARSIA_OPS"] = ""
    for quant in ("int8", "int4"):
        report(f"{quant}, native", stepwise(quant, tokens), exact)
    for kind in ("Q8_0", "Q4_1", "Q4_0"):
        report(f"llama.cpp {kind}", llama_logits(kind, tokens), exact)


def stepwise(quant: str, tokens: list[int]) -> np.ndarray:
    """Logits after each token (tokens, vocab)."""
    model = load_checkpoint(resolve(MODEL).path, quant=quant)
    config = model.config
    blocks = 1 + blocks_for(len(tokens))
    pool = PoolShape(config.num_layers, config.num_kv_heads, config.head_dim, blocks).empty()
    table = jnp.arange(1, blocks)[None]

    def step(params, pool, token, position):
        attend = decode_attend(config, position, table)
        hidden, pool = decoder.run(params, config, token[:, None], position[:, None], attend, pool)
        return decoder.logits(params, config, hidden[:, 0])[0], pool

    run = compile(partial(step), donate_argnums=1)
    found = []
    for position, token in enumerate(tokens):
        logits, pool = run(model.params, pool, jnp.asarray([token]), jnp.asarray([position]))
        found.append(np.asarray(logits))
    return np.stack(found)


def report(name: str, logits: np.ndarray, exact: np.ndarray) -> None:
    ours, reference = (np.asarray(jax.nn.log_softmax(x.astype(np.float32))) for x in (logits, exact))
    divergence = (np.exp(reference) * (reference - ours)).sum(-1).mean()
    same = (ours.argmax(-1) == reference.argmax(-1)).mean()
    print(f"  {name:16s} KL {divergence:.5f}  top-1 {same:.3f}  ({len(exact)} tokens)", flush=True)


if __name__ == "__main__":
    main()
