"""The peers of `experiments.bench.gpu`: cuBLAS and cuDNN by PyTorch, and Triton's own tutorial kernels.

The Triton kernels follow its tutorials 02 (softmax), 03 (matmul) and 06 (attention), forward only.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch.nn.attention import SDPBackend, sdpa_kernel


@triton.jit
def _softmax(x, o, columns, WIDTH: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, WIDTH)
    v = tl.load(x + row * columns + at, mask=at < columns, other=-float("inf")).to(tl.float32)
    e = tl.exp(v - tl.max(v, axis=0))
    tl.store(o + row * columns + at, (e / tl.sum(e, axis=0)).to(o.dtype.element_ty), mask=at < columns)


@triton.jit
def _rms_norm(x, w, o, columns, WIDTH: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, WIDTH)
    v = tl.load(x + row * columns + at, mask=at < columns, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(v * v, axis=0) / columns + 1e-6)
    weight = tl.load(w + at, mask=at < columns, other=0.0).to(tl.float32)
    tl.store(o + row * columns + at, (v * scale * weight).to(o.dtype.element_ty), mask=at < columns)


@triton.jit
def _swiglu(g, u, o, count, WIDTH: tl.constexpr):
    at = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    gate = tl.load(g + at, mask=at < count).to(tl.float32)
    up = tl.load(u + at, mask=at < count).to(tl.float32)
    tl.store(o + at, (gate * tl.sigmoid(gate) * up).to(o.dtype.element_ty), mask=at < count)


def _tiles(*shapes: tuple[int, int, int, int, int]) -> list[triton.Config]:
    return [
        triton.Config({"BM": m, "BN": n, "BK": k, "GROUP": 8}, num_warps=warps, num_stages=stages)
        for m, n, k, warps, stages in shapes
    ]


@triton.autotune(_tiles((128, 256, 64, 8, 3), (128, 128, 64, 4, 4), (64, 128, 32, 4, 4)), key=["M", "N", "K"])
@triton.jit
def _matmul(
    a, b, o, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    across = tl.cdiv(N, BN)
    group, within = tl.program_id(0) // (GROUP * across), tl.program_id(0) % (GROUP * across)
    height = min(tl.cdiv(M, BM) - group * GROUP, GROUP)
    rows = (group * GROUP + within % height) * BM + tl.arange(0, BM)
    columns = (within // height) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, K, BK):
        inner = start + tl.arange(0, BK)
        left = tl.load(a + rows[:, None] * K + inner[None, :])
        total = tl.dot(left, tl.load(b + inner[:, None] * N + columns[None, :]), total)
    tl.store(o + rows[:, None] * N + columns[None, :], total.to(o.dtype.element_ty))


@triton.jit
def _attention(q, k, v, o, S, scale, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    head, rows = tl.program_id(1) * S * D, tl.program_id(0) * BM + tl.arange(0, BM)
    dims, keys = tl.arange(0, D), tl.arange(0, BN)
    query = tl.load(q + head + rows[:, None] * D + dims[None, :])
    top = tl.full((BM,), -float("inf"), tl.float32)
    total, mixed = tl.zeros((BM,), tl.float32), tl.zeros((BM, D), tl.float32)
    for start in range(0, (tl.program_id(0) + 1) * BM, BN):
        at = start + keys
        scores = tl.dot(query, tl.load(k + head + at[None, :] * D + dims[:, None])) * (scale * 1.44269504)
        scores = tl.where(at[None, :] <= rows[:, None], scores, -float("inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        p, fade = tl.exp2(scores - higher[:, None]), tl.exp2(top - higher)
        value = tl.load(v + head + at[:, None] * D + dims[None, :])
        mixed = tl.dot(p.to(value.dtype), value, mixed * fade[:, None])
        total, top = total * fade + tl.sum(p, 1), higher
    tl.store(o + head + rows[:, None] * D + dims[None, :], (mixed / total[:, None]).to(o.dtype.element_ty))


def _rows(kernel: Any, *arrays: torch.Tensor) -> torch.Tensor:
    out, columns = torch.empty_like(arrays[0]), arrays[0].shape[1]
    warps = min(16, max(4, columns // 1024))
    kernel[(arrays[0].shape[0],)](
        *arrays, out, columns, WIDTH=triton.next_power_of_2(columns), num_warps=warps
    )
    return out


def _gated(g: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(g)
    _swiglu[(triton.cdiv(g.numel(), 2048),)](g, u, out, g.numel(), WIDTH=2048, num_warps=8)
    return out


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    (m, k), n = a.shape, b.shape[1]
    out = torch.empty((m, n), device=a.device, dtype=a.dtype)
    _matmul[lambda chosen: (triton.cdiv(m, chosen["BM"]) * triton.cdiv(n, chosen["BN"]),)](a, b, out, m, n, k)
    return out


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    batch, heads, length, dim = q.shape
    out, wide = torch.empty_like(q), 128
    _attention[(length // wide, batch * heads)](
        q, k, v, out, length, dim**-0.5, D=dim, BM=wide, BN=64, num_warps=8, num_stages=3
    )
    return out


def _cudnn(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


PEERS: dict[str, dict[str, Callable[..., torch.Tensor]]] = {
    "softmax": {"triton": lambda x: _rows(_softmax, x)},
    "rms_norm": {"triton": lambda x, w: _rows(_rms_norm, x, w)},
    "swiglu": {"triton": _gated},
    "matmul": {"cublas": torch.matmul, "triton": _product},
    "flash_attention": {"cudnn": _cudnn, "triton": _attend},
}
"""By a kernel's name, what computes the same from the same arrays as tensors."""
