"""Writes small GGUF files of a random llama, and packs the K-quant blocks the gguf package cannot."""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

_SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,)}
"""Where the float16 scales of a block lie."""
HIDDEN, INNER, HEADS, KV_HEADS, VOCAB, CONTEXT = 256, 512, 4, 2, 96, 64


def random_blocks(kind: GGMLQuantizationType, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Valid random blocks of any type: bytes at random, except that float16 scales are small numbers."""
    rng = np.random.default_rng(seed)
    block, size = GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (shape[0] * shape[1] // block, size), dtype=np.uint8)
    halves = _SCALES[kind.name]
    for at in halves:
        scale = (rng.random((len(blocks), 1)) * 1e-3 + 1e-4).astype(np.float16)
        blocks[:, at : at + 2] = scale.view(np.uint8)
    return blocks.reshape(shape[0], -1)


def encoded(weights: np.ndarray, kind: GGMLQuantizationType, seed: int = 0) -> np.ndarray:
    """`weights` in the blocks of `kind`; where the package cannot, random blocks of the same shape."""
    if kind.name in _SCALES:
        return random_blocks(kind, weights.shape, seed)
    return quantize(weights, kind)


def llama_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    dim = HIDDEN // HEADS
    shapes = {
        "token_embd": (VOCAB, HIDDEN),
        "blk.0.attn_q": (HIDDEN, HIDDEN),
        "blk.0.attn_k": (KV_HEADS * dim, HIDDEN),
        "blk.0.attn_v": (KV_HEADS * dim, HIDDEN),
        "blk.0.attn_output": (HIDDEN, HIDDEN),
        "blk.0.ffn_gate": (INNER, HIDDEN),
        "blk.0.ffn_up": (INNER, HIDDEN),
        "blk.0.ffn_down": (HIDDEN, INNER),
        "blk.0.attn_norm": (HIDDEN,),
        "blk.0.ffn_norm": (HIDDEN,),
        "output_norm": (HIDDEN,),
    }
    draw = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return {f"{name}.weight": values * np.float32(0.1) for name, values in draw.items()}


def write_llama(
    path: Path,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    *,
    tensors: dict[str, np.ndarray] | None = None,
    architecture: str = "llama",
) -> dict[str, np.ndarray]:
    """Writes the file with matrices in `kind`; returns each tensor's bytes or numbers as written."""
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCAB)
    writer.add_array("test.words", ["one", "zwei", "三", ""])
    writer.add_array("test.numbers", [1, -2, 3])
    writer.add_bool("test.flag", True)
    written = {}
    for seed, (name, values) in enumerate((tensors or llama_tensors()).items()):
        matrix = values.ndim == 2
        written[name] = encoded(values, kind, seed) if matrix else values
        writer.add_tensor(name, written[name], raw_dtype=kind if matrix else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written
