"""Decode steps of 0.5B and 7B decoders with random bf16 weights on a GPU, beside transformers.

Tokens a second, and the bytes that a step must read (weights once, keys and values of all sequences) over
the bandwidth of a copy measured in the same run. transformers decodes eagerly from its own cache.
Run: `python -m experiments.bench.gpu_decode [--batch 1 64] [--context 256] [NAME...]`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.generate.kv_pool import blocks_for
from engine.generate.model import DecoderStepModel
from engine.generate.request import SamplingParams
from engine.generate.step_model import Opening
from engine.models.decoder import parameter_shapes
from engine.models.decoder_config import DecoderConfig
from engine.ops.rope import RopeConfig

STEPS = 32


def config(
    hidden: int, inner: int, layers: int, heads: int, kv: int, vocab: int, **more: Any
) -> DecoderConfig:
    dim = hidden // heads
    rope = RopeConfig(dim, 1e6)
    return DecoderConfig("llama", vocab, hidden, inner, layers, heads, kv, dim, 4096, 1e-6, rope, **more)


SHAPES = {
    "0.5B": config(896, 4864, 24, 14, 2, 151936, qkv_bias=True, tied=True),
    "7B": config(4096, 14336, 32, 32, 8, 32000),
}
"""Of Qwen2.5 0.5B and of Mistral 7B."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(SHAPES))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peer", action="store_true", help="without transformers")
    options = parser.parse_args()
    bandwidth = copied()
    print(f"decode: {jax.devices()[0].device_kind}, a copy moves {bandwidth / 1e12:.2f} TB/s", flush=True)
    print("| model | batch | tokens/s | of bandwidth | transformers tokens/s | ours / theirs |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in options.names:
        shape = SHAPES[name]
        params = random_params(shape)
        peer = None if options.no_peer else transformers_model(shape)
        model, each = ours(params, shape, max(options.batch), options.context)
        for batch in options.batch:
            run = stepping(model, each, batch, options.context)
            seconds = median(run, options.rounds) / STEPS
            length = options.context + 2 * STEPS
            keys = 4 * batch * length * shape.num_layers * shape.num_kv_heads * shape.head_dim
            share = (read_bytes(params, shape) + keys) / seconds / bandwidth
            theirs = batch * STEPS / median(decoding(peer, batch, options.context), 2) if peer else 0.0
            cells = f"{theirs:.0f} | {batch / seconds / theirs:.2f}" if theirs else " | "
            print(f"| {name} | {batch} | {batch / seconds:.0f} | {share:.2f} | {cells} |", flush=True)
        del params, peer, model
    return 0


def copied() -> float:
    """Bytes a second of a copy, read and written."""
    x = jax.random.normal(jax.random.key(0), (2**28,))
    double = jax.jit(lambda x: x + 1)

    def run() -> None:
        jax.block_until_ready([double(x) for _ in range(4)])

    return 8 * x.nbytes / median(run, 5)


def random_params(shape: DecoderConfig) -> dict[str, Any]:
    @jax.jit
    def made(key: jax.Array, like: jax.Array) -> jax.Array:
        return jax.random.normal(key, like.shape, jnp.bfloat16) * like.shape[-1] ** -0.5

    flat: dict[str, Any] = {}
    for number, (name, extents) in enumerate(parameter_shapes(shape).items()):
        like = jnp.empty(extents, jnp.bfloat16)
        flat[name] = made(jax.random.key(number), like) if len(extents) > 1 else jnp.ones(extents)
    return nested(flat, shape.num_layers)


def nested(flat: dict[str, Any], layers: int) -> dict[str, Any]:
    """{"layers.0.q.weight": w} -> {"layers": [{"q": {"weight": w}}]}; needs no reader of files."""
    tree: dict[str, Any] = {"layers": [{} for _ in range(layers)]}
    for name, value in flat.items():
        node: Any = tree
        *parents, leaf = name.split(".")
        for parent in parents:
            node = node[int(parent)] if parent.isdigit() else node.setdefault(parent, {})
        node[leaf] = value
    return tree


def read_bytes(params: dict[str, Any], shape: DecoderConfig) -> int:
    """Of the weights that a step reads; of an embedding that is not the head too, it reads a row."""
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return whole if shape.tied else whole - params["embed"].nbytes


def ours(
    params: dict[str, Any], shape: DecoderConfig, batch: int, context: int
) -> tuple[DecoderStepModel, int]:
    """The model, and the blocks of a sequence."""
    length = context + 8 * STEPS
    model = DecoderStepModel(params, shape, max_slots=batch, max_context=length, kv_bytes=64 * 2**30)
    return model, blocks_for(length)


def stepping(model: DecoderStepModel, each: int, batch: int, context: int) -> Callable[[], None]:
    """STEPS steps of `batch` sequences that begin with `context` tokens."""
    tables = [(slot, range(1 + slot * each, 1 + (slot + 1) * each)) for slot in range(batch)]
    prompt = tuple(map(int, np.random.default_rng(0).integers(100, 5000, context)))
    for slot, table in tables:
        model.start(slot, Opening(prompt, SamplingParams(temperature=0), 0))
        done = 0
        while done < context:
            done += model.prefill(slot, table, done).positions

    def steps() -> None:
        for _ in range(STEPS):
            model.decode(tables)

    return steps


def transformers_model(shape: DecoderConfig) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    described = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        max_position_embeddings=shape.max_context,
        attention_bias=False,
        tie_word_embeddings=shape.tied,
    )
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = LlamaForCausalLM(described).eval()
        torch.set_default_dtype(torch.float32)
    return model


def decoding(model: Any, batch: int, context: int) -> Callable[[], None]:
    """STEPS greedy steps of transformers from a filled cache."""
    import torch
    from transformers import DynamicCache

    tokens = torch.randint(100, 5000, (batch, context), device="cuda")
    state = {"cache": DynamicCache(), "token": tokens}
    with torch.inference_mode():
        model(tokens, past_key_values=state["cache"], use_cache=True, logits_to_keep=1)
    state["token"] = tokens[:, -1:]

    def steps() -> None:
        with torch.inference_mode():
            for _ in range(STEPS):
                found = model(state["token"], past_key_values=state["cache"], use_cache=True)
                state["token"] = found.logits[:, -1:].argmax(-1)
        torch.cuda.synchronize()

    return steps


def median(run: Callable[[], None], rounds: int) -> float:
    """Seconds of a run, after one that does not count."""
    run()
    spans = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        spans.append(time.perf_counter() - begun)
    return statistics.median(spans)


if __name__ == "__main__":
    sys.exit(main())
