"""The library's kernels on NVIDIA's matrix units through NVIDIA's compiler, at the sizes tuned for GPUs."""

import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl.kernels.attention import flash_attention, ragged_attention
from dsl.kernels.decode import decode_attention
from dsl.kernels.distance import distance
from dsl.kernels.matmul import batched_matmul, matmul, matmul_bias
from dsl.kernels.quant_matmul import int4_matmul, int8_matmul
from dsl.targets.cuda import nvrtc
from dsl.targets.cuda.target import compiled

pytestmark = pytest.mark.skipif(not nvrtc.installed(), reason=nvrtc.MISSING)
LENGTHS = jnp.asarray([300, 512], jnp.int32)


def zeros(*shape, dtype=jnp.float32):
    return np.zeros(shape, dtype)


def cached(dim, dtype):
    return zeros(2, 2, 512, dim, dtype=dtype)


KERNELS = {
    "matmul of large tiles": lambda t: matmul.ir(*(zeros(2048, 2048, dtype=t),) * 2, target="cuda"),
    "matmul": lambda t: matmul.ir(zeros(500, 512, dtype=t), zeros(512, 512, dtype=t), target="cuda"),
    "matmul_bias": lambda t: matmul_bias.ir(
        zeros(512, 512, dtype=t),
        zeros(512, 512, dtype=t),
        zeros(512, dtype=t),
        activation="gelu",
        target="cuda",
    ),
    "batched_matmul": lambda t: batched_matmul.ir(
        zeros(2, 64, 64, dtype=t), zeros(2, 64, 64, dtype=t), target="cuda"
    ),
    "flash_attention 64": lambda t: flash_attention.ir(*(cached(64, t),) * 3, target="cuda"),
    "flash_attention 128": lambda t: flash_attention.ir(*(cached(128, t),) * 3, target="cuda"),
    "ragged_attention": lambda t: ragged_attention.ir(*(cached(64, t),) * 3, LENGTHS, target="cuda"),
    "decode_attention 64": lambda t: decode_attention.ir(
        zeros(2, 8, 64, dtype=t), cached(64, t), cached(64, t), LENGTHS, target="cuda"
    ),
    "decode_attention 128": lambda t: decode_attention.ir(
        zeros(2, 8, 128, dtype=t), cached(128, t), cached(128, t), LENGTHS, target="cuda"
    ),
    "distance": lambda t: distance.ir(zeros(512, 64, dtype=t), zeros(512, 64, dtype=t), target="cuda"),
    "int8_matmul": lambda t: int8_matmul.ir(
        zeros(512, 512, dtype=t), zeros(512, 512, dtype=jnp.int8), zeros(512, 16), target="cuda"
    ),
    "int4_matmul": lambda t: int4_matmul.ir(
        zeros(512, 512, dtype=t),
        dsl.Packed(jnp.zeros((512, 256), jnp.uint8), "u4"),
        zeros(512, 16),
        zeros(512, 16),
        target="cuda",
    ),
}


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize(("dtype", "name"), [(jnp.float16, "f16"), (jnp.bfloat16, "bf16")])
@pytest.mark.parametrize("kernel", KERNELS)
def test_matrix_instructions_come_out_and_nothing_spills(kernel, dtype, name, arch):
    program, binary = compiled(KERNELS[kernel](dtype), arch)
    assert f"mma.sync.aligned.m16n8k16.row.col.f32.{name}.{name}.f32" in binary.ptx
    assert "ldmatrix.sync.aligned.m8n8.x4" in binary.ptx
    assert binary.spilled == 0 and binary.shared == program.shared_bytes


def test_what_memory_allows_is_read_sixteen_bytes_at_a_time():
    wide = compiled(KERNELS["matmul"](jnp.float16), "sm_80")[1]
    assert "ld.global.nc.v4" in wide.ptx and "st.shared.v4" in wide.ptx
    odd = compiled(matmul.ir(zeros(64, 65, dtype=jnp.float16), zeros(65, 63, dtype=jnp.float16)), "sm_80")[1]
    assert "ld.global.nc.v4" not in odd.ptx


def test_gpus_before_these_instructions_get_rows():
    program, binary = compiled(KERNELS["matmul"](jnp.float16), "sm_75")
    assert "there is no matrix unit" in program.layout and "mma.sync" not in binary.ptx
