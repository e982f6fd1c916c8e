"""An independent decoder for GGUF files of architecture llama: NumPy, float32, interleaved RoPE.

It shares no code with the engine: the container is read by the `gguf` package, and q and k stay in
the interleaved order of the file. `round_activations` rounds the input of every matrix product to
int8 in groups of 32, as llama.cpp does with quantised weights, and keys and values to float16.
"""

from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize


class NumpyDecoder:
    def __init__(self, path: Path, *, round_activations: bool = False) -> None:
        reader = GGUFReader(path)
        fields = {key: field.contents() for key, field in reader.fields.items() if key.startswith("llama.")}
        self.weights = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
        self.layers = fields["llama.block_count"]
        self.heads = fields["llama.attention.head_count"]
        self.kv_heads = fields["llama.attention.head_count_kv"]
        self.eps = fields["llama.attention.layer_norm_rms_epsilon"]
        self.theta = fields["llama.rope.freq_base"]
        self.rounding = round_activations

    def logits(self, ids: list[int]) -> np.ndarray:
        """Of the token after the last of `ids`, float32 (vocab,)."""
        x = self.weights["token_embd.weight"][ids]
        for i in range(self.layers):
            x = x + self.attention(i, self.norm(x, f"blk.{i}.attn_norm"))
            h = self.norm(x, f"blk.{i}.ffn_norm")
            gate = self.product(h, f"blk.{i}.ffn_gate")
            x = x + self.product(
                gate / (1 + np.exp(-gate)) * self.product(h, f"blk.{i}.ffn_up"), f"blk.{i}.ffn_down"
            )
        return self.product(self.norm(x[-1:], "output_norm"), "token_embd")[0]

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.weights[name + ".weight"]

    def product(self, x: np.ndarray, name: str) -> np.ndarray:
        if self.rounding:
            groups = x.reshape(len(x), -1, 32)
            step = np.abs(groups).max(-1, keepdims=True) / 127
            codes = np.round(groups / np.where(step == 0, 1, step))
            x = (codes * step.astype(np.float16).astype(np.float32)).reshape(x.shape)
        return x @ self.weights[name + ".weight"].T

    def attention(self, i: int, x: np.ndarray) -> np.ndarray:
        length = len(x)
        q, k, v = (self.product(x, f"blk.{i}.attn_{name}").reshape(length, -1, 64) for name in "qkv")
        q, k = self.rotate(q), self.rotate(k)
        if self.rounding:
            k, v = k.astype(np.float16).astype(np.float32), v.astype(np.float16).astype(np.float32)
        out = np.zeros_like(q)
        for head in range(self.heads):
            kv = head // (self.heads // self.kv_heads)
            scores = q[:, head] @ k[:, kv].T / 8
            scores[np.triu_indices(length, 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, kv]
        return self.product(out.reshape(length, -1), f"blk.{i}.attn_output")

    def rotate(self, x: np.ndarray) -> np.ndarray:
        angle = np.arange(len(x))[:, None] * self.theta ** (-np.arange(0, 64, 2) / 64)
        cos, sin = np.cos(angle)[:, None].astype(np.float32), np.sin(angle)[:, None].astype(np.float32)
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out
