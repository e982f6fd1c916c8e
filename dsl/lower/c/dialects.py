"""What differs between CUDA C++ and the Metal Shading Language: words, types, functions and limits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dsl.ir.types import RefType

_FLOOR = """\
{q} int floor_div(int a, int b) {{
  if (b == 0) return 0;
  if (b == -1) return int(0u - unsigned(a));
  int q = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}}
{q} int floor_mod(int a, int b) {{
  return int(unsigned(a) - unsigned(floor_div(a, b)) * unsigned(b));
}}
"""
_TRUNCATE = """\
{q} int truncate(float x) {{
  return x != x ? 0 : x >= 2147483648.0f ? 2147483647 : x < -2147483648.0f ? -2147483647 - 1 : int(x);
}}
"""
_NIBBLES = """\
{q} int nibble_byte(int c) {{ return (c >> 5) * 16 + (c & 15); }}
{q} int u4(int byte, int c) {{ return byte >> ((c >> 4 & 1) * 4) & 15; }}
{q} int i4(int byte, int c) {{ return (u4(byte, c) ^ 8) - 8; }}
"""
_CUDA_HALVES = """\
#ifndef DSL_SIMULATED
{q} float from_f16(unsigned short h) {{
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
}}
{q} unsigned short to_f16(float f) {{
  unsigned short h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}}
{q} float from_bf16(unsigned short h) {{ return __uint_as_float(unsigned(h) << 16); }}
{q} unsigned short to_bf16(float f) {{
  unsigned short h;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}}
#endif
"""
_METAL_HALVES = """\
{q} float from_f16(half h) {{ return float(h); }}
{q} half to_f16(float f) {{ return half(f); }}
{q} float from_bf16(bfloat h) {{ return float(h); }}
{q} bfloat to_bf16(float f) {{ return bfloat(f); }}
"""
_METAL_ERF = """\
{q} float erf(float x) {{  // x P(x^2) / Q(x^2) on [-4, 4], as Eigen and XLA have it
  x = clamp(x, -4.0f, 4.0f);
  float s = x * x;
  float p = -2.72614225801306e-10f;
  p = p * s + 2.77068142495902e-08f;
  p = p * s - 2.10102402082508e-06f;
  p = p * s - 5.69250639462346e-05f;
  p = p * s - 7.34990630326855e-04f;
  p = p * s - 2.95459980854025e-03f;
  p = p * s - 1.60960333262415e-02f;
  float q = -1.45660718464996e-05f;
  q = q * s - 2.13374055278905e-04f;
  q = q * s - 1.68282697438203e-03f;
  q = q * s - 7.37332916720468e-03f;
  q = q * s - 1.42647390514189e-02f;
  return x * p / q;
}}
"""


@dataclass(frozen=True, eq=False)
class Dialect:
    """A C-like GPU language as a table of templates.

    Attributes:
        shared_limit: bytes of statically sized memory that the threads of a block share.
        helpers: name of a function that emitted code may call -> the text that defines it.
        functions: IR kind (and "bits", "float": reinterpretations) -> template with {0}, {1}.
    """

    name: str
    types: Mapping[str, str]
    prologue: str
    qualifier: str
    barrier: str
    shuffle: str
    shared: str
    parameter: str
    head: str
    atomic: Callable[[RefType, str, str], str]
    shared_limit: int
    helpers: Mapping[str, str]
    functions: Mapping[str, str]

    def signature(self, name: str, refs: Sequence[tuple[RefType, str]], threads: int) -> str:
        """The kernel's head up to its opening brace, and the names of where it runs."""
        words = [
            self.parameter.format(
                const="" if ref.is_written else "const ",
                type=self.types[ref.dtype],
                name=called,
                number=number,
            )
            for number, (ref, called) in enumerate(refs)
        ]
        return self.head.format(name=name, parameters=", ".join(words), threads=threads)

    def definitions(self, body: str) -> str:
        """The helper functions that `body` calls, each text once, in the order of the table."""
        texts: list[str] = []
        for name, text in self.helpers.items():
            if f"{name}(" in body and text not in texts:
                texts.append(text)
        return "".join(text.format(q=self.qualifier) for text in texts)


def parameter_name(ref: RefType) -> str:
    """A Ref's name in emitted code, apart from every word of C and of the emitter."""
    return f"{ref.name}_ref"


def _cuda_atomic(ref: RefType, place: str, value: str) -> str:
    return f"atomicAdd(&{place}, {value});"


def _metal_atomic(ref: RefType, place: str, value: str) -> str:
    kind = "atomic_float" if ref.dtype == "f32" else "atomic_int"
    return f"atomic_fetch_add_explicit((device {kind}*)&{place}, {value}, memory_order_relaxed);"


_EACH = "#define EACH(i, n) {unroll} for (int i = 0; i < n; ++i)\n"
_HALVES = ("from_f16", "to_f16", "from_bf16", "to_bf16")
_COMMON = {
    "floor_div": _FLOOR,
    "floor_mod": _FLOOR,
    "truncate": _TRUNCATE,
    "nibble_byte": _NIBBLES,
}

CUDA = Dialect(
    name="cuda",
    types={
        "f32": "float",
        "f16": "unsigned short",
        "bf16": "unsigned short",
        "i32": "int",
        "i8": "signed char",
        "u8": "unsigned char",
        "i4": "unsigned char",
        "u4": "unsigned char",
    },
    prologue=_EACH.format(unroll='_Pragma("unroll")') + "#define INF __int_as_float(0x7f800000)\n",
    qualifier="static __device__ __forceinline__",
    barrier="__syncthreads();",
    shuffle="__shfl_xor_sync(0xffffffffu, {value}, {mask})",
    shared="__shared__ float pool[{count}];",
    parameter="{const}{type}* __restrict__ {name}",
    head=(
        'extern "C" __global__ void __launch_bounds__({threads}) {name}({parameters}) {{\n'
        "  const int block = blockIdx.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;\n"
    ),
    atomic=_cuda_atomic,
    shared_limit=48 * 1024,
    helpers=_COMMON | dict.fromkeys(_HALVES, _CUDA_HALVES),
    functions={
        "exp": "expf({0})",
        "log": "logf({0})",
        "tanh": "tanhf({0})",
        "rsqrt": "rsqrtf({0})",
        "sqrt": "sqrtf({0})",
        "erf": "erff({0})",
        "round": "rintf({0})",
        "abs": "fabsf({0})",
        "popcount": "__popc({0})",
        "not": "!{0}",
        "max": "fmaxf({0}, {1})",
        "min": "fminf({0}, {1})",
        "bits": "__float_as_int({0})",
        "float": "__int_as_float({0})",
    },
)

METAL = Dialect(
    name="metal",
    types={
        "f32": "float",
        "f16": "half",
        "bf16": "bfloat",
        "i32": "int",
        "i8": "char",
        "u8": "uchar",
        "i4": "uchar",
        "u4": "uchar",
    },
    prologue=(
        "#include <metal_stdlib>\nusing namespace metal;\n"
        + _EACH.format(unroll='_Pragma("clang loop unroll(full)")')
        + "#define INF INFINITY\n"
    ),
    qualifier="static inline",
    barrier="threadgroup_barrier(mem_flags::mem_threadgroup);",
    shuffle="simd_shuffle_xor({value}, ushort({mask}))",
    shared="threadgroup float pool[{count}];",
    parameter="device {const}{type}* {name} [[buffer({number})]]",
    head=(
        "kernel void {name}({parameters},\n"
        "    uint block_ [[threadgroup_position_in_grid]],\n"
        "    uint lane_ [[thread_index_in_simdgroup]],\n"
        "    uint warp_ [[simdgroup_index_in_threadgroup]]) {{\n"
        "  const int block = int(block_), warp = int(warp_), lane = int(lane_);\n"
    ),
    atomic=_metal_atomic,
    shared_limit=32 * 1024,
    helpers=_COMMON | dict.fromkeys(_HALVES, _METAL_HALVES) | {"erf": _METAL_ERF},
    functions={
        "exp": "exp({0})",
        "log": "log({0})",
        "tanh": "precise::tanh({0})",
        "rsqrt": "rsqrt({0})",
        "sqrt": "sqrt({0})",
        "erf": "erf({0})",
        "round": "rint({0})",
        "abs": "fabs({0})",
        "popcount": "int(popcount(uint({0})))",
        "not": "!{0}",
        "max": "fmax({0}, {1})",
        "min": "fmin({0}, {1})",
        "bits": "as_type<int>({0})",
        "float": "as_type<float>({0})",
    },
)
