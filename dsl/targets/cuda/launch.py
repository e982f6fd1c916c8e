"""How a compiled kernel is launched inside `jit`: the bytes that JAX's own CUDA launcher takes.

JAX's CUDA plugin registers the FFI target `triton_kernel_call_ffi` for Triton's sake. It launches any
kernel, on XLA's stream, with no Python on the way and in CUDA graphs too. Its one attribute is a
compressed protobuf (jaxlib/gpu/triton.proto), written here by hand: field numbers and order are those
of the plugin's encoder, to which a test compares every byte.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

import jax
import jax.numpy as jnp

from dsl.ir.access import covers
from dsl.ir.ops import Kernel
from dsl.lang.arguments import NUMPY_NAME
from dsl.lower.c.emit import Program
from dsl.targets.cuda import nvrtc
from dsl.targets.cuda.nvrtc import Binary

PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
TAKES_CUBIN = (0, 11, 2)
"""The first jaxlib whose launcher takes machine code beside PTX; it compiles PTX by XLA's ptxas."""
TARGET_NAME = "triton_kernel_call_ffi"
ALIGNMENT = 16
"""Bytes that each buffer's address is a multiple of; the launcher checks it. XLA aligns to 128."""
_VARINT, _BYTES = 0, 2


@dataclass(frozen=True)
class Launch:
    """What the launcher is told.

    Attributes:
        name: of the kernel function.
        warps: of a block.
        shared: bytes of dynamic shared memory.
        capability: 10 * major + minor.
        zeroed: for each parameter in order, the bytes to set to zero before the launch.
        cubin: machine code for exactly this capability; b"" to have the PTX compiled.
    """

    name: str
    warps: int
    shared: int
    ptx: str
    capability: int
    grid: tuple[int, int, int]
    zeroed: tuple[int, ...]
    cubin: bytes = b""

    def encode(self) -> bytes:
        """The protobuf `TritonAnyKernelCall`, not yet compressed."""
        kernel = (
            _text(1, self.name)
            + _number(2, self.warps)
            + _number(3, self.shared)
            + _text(4, self.ptx)
            + _number(6, self.capability)
            + _number(10, 1)
        )
        if self.cubin:
            image = _message(1, self.cubin) + _text(2, self.name) + _number(3, self.shared)
            kernel += _message(11, image)
        grid = b"".join(_number(2 + axis, extent) for axis, extent in enumerate(self.grid))
        arrays = b"".join(
            _message(5, _message(1, _number(1, count) + _number(2, ALIGNMENT))) for count in self.zeroed
        )
        return _message(1, _message(1, kernel) + grid + arrays) + _text(4, self.name)


def launch_of(kernel: Kernel, program: Program, binary: Binary) -> Launch:
    """The launch of an emitted and compiled kernel; outputs not surely covered are zeroed first."""
    fresh = {ref.name: ref for ref in kernel.outputs if ref.role == "out" and not covers(kernel, ref)}
    zeroed = tuple(fresh[ref.name].nbytes if ref.name in fresh else 0 for ref in program.parameters)
    capability = int("".join(letter for letter in binary.arch if letter.isdigit()))
    grid = (program.blocks, 1, 1)
    return Launch(program.entry, program.threads // 32, 0, binary.ptx, capability, grid, zeroed)


def registered() -> bool:
    """True when the installed CUDA plugin brings the launcher, which no API of JAX promises."""
    for name in PLUGINS:
        try:
            triton: Any = import_module(f"{name}._triton")
        except ImportError:
            continue
        return TARGET_NAME in triton.registrations()
    return False


def ptx_is_too_new() -> bool:
    """True when NVRTC is newer than the ptxas that XLA finds: that one refuses NVRTC's PTX."""
    found = [_installed(name) for name in ("nvidia-cuda-nvcc", "nvidia-cuda-nvcc-cu12")]
    ptxas = max((version for version in found if version), default=None)
    return ptxas is not None and _version(nvrtc.version()) > ptxas


def _installed(distribution: str) -> tuple[int, int] | None:
    try:
        return _version(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return None


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def caller(kernel: Kernel, launch: Launch) -> Callable[..., tuple[jax.Array, ...]]:
    """A traceable function that launches the kernel on a CUDA device."""
    opaque = zlib.compress(launch.encode())
    struct: Any = jax.ShapeDtypeStruct
    results = tuple(struct(ref.shape, jnp.dtype(NUMPY_NAME[ref.dtype])) for ref in kernel.outputs)
    position = {ref.name: number for number, ref in enumerate(kernel.inputs)}
    aliases = {position[ref.name]: number for number, ref in enumerate(kernel.outputs) if ref.role == "inout"}

    def call(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        run: Any = jax.ffi.ffi_call(TARGET_NAME, results, input_output_aliases=aliases)
        found: Sequence[jax.Array] = run(*arrays, opaque=opaque)
        return tuple(found)

    return call


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _number(field: int, value: int) -> bytes:
    """A varint field; zero is the default and is left out."""
    return _varint(field << 3 | _VARINT) + _varint(value) if value else b""


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode()) if value else b""
