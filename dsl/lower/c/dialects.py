"""What differs between CUDA C++ and the Metal Shading Language: words, types, functions and limits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dsl.ir.types import BITS, DType, RefType
from dsl.lower.c import helpers
from dsl.lower.c.layout import MMA_16_8_16, SIMDGROUP_8_8, MatrixUnit


@dataclass(frozen=True, eq=False)
class Dialect:
    """A C-like GPU language as a table of templates.

    Attributes:
        types: of an element in memory, by storage dtype.
        words: of what is read or written at once, by bytes.
        halves: declares the name of shared memory as 16-bit elements.
        narrow_bits: template of a 16-bit element with {type}, from its bits.
        unit: multiplies matrices, if the GPUs have one.
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
    halves: str
    narrow_bits: str
    narrow_zero: str
    words: Mapping[int, str]
    unit: MatrixUnit | None
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

    @property
    def value_types(self) -> dict[DType, str]:
        """What a thread holds an element of a value as."""
        f16, bf16 = self.types["f16"], self.types["bf16"]
        return {"f32": "float", "i32": "int", "bool": "bool", "f16": f16, "bf16": bf16}

    def word(self, count: int, dtype: str) -> str:
        """The type of `count` elements of a storage dtype at once."""
        return self.words[count * BITS[dtype] // 8]

    def narrow(self, dtype: str, bits: str) -> str:
        """An element of a staged operand: as it is if f32."""
        return bits if dtype == "f32" else self.narrow_bits.format(bits, type=self.types[dtype])

    def zero(self, dtype: str) -> str:
        """Zero as a thread holds it."""
        return "0.0f" if dtype == "f32" else self.narrow_zero.format(type=self.types[dtype])

    def definitions(self, body: str) -> str:
        """The helper functions that `body` calls, each text once, in the order of the table."""
        texts: list[str] = []
        for name, text in self.helpers.items():
            if (f"{name}(" in body or f"{name}<" in body) and text not in texts:
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
_WIDE = ("fetch", "keep", "put")
_MATRICES = ("pair", "load_matrices", "load_transposed")
_COMMON = {
    "floor_div": helpers.FLOOR,
    "floor_mod": helpers.FLOOR,
    "truncate": helpers.TRUNCATE,
    "nibble_byte": helpers.NIBBLES,
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
    shared="__shared__ __align__(16) float pool[{count}];",
    halves="unsigned short* const halves = (unsigned short*)pool;",
    narrow_bits="{0}",
    narrow_zero="0",
    words={2: "unsigned short", 4: "unsigned", 8: "uint2", 16: "uint4"},
    unit=MMA_16_8_16,
    parameter="{const}{type}* __restrict__ {name}",
    head=(
        'extern "C" __global__ void __launch_bounds__({threads}) {name}({parameters}) {{\n'
        "  const int block = blockIdx.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;\n"
    ),
    atomic=_cuda_atomic,
    shared_limit=48 * 1024,
    helpers=_COMMON
    | dict.fromkeys(_HALVES, helpers.CUDA_HALVES)
    | dict.fromkeys(_WIDE, helpers.CUDA_WIDE)
    | dict.fromkeys(_MATRICES, helpers.CUDA_MATRICES),
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
    shared="alignas(16) threadgroup float pool[{count}];",
    halves="threadgroup ushort* const halves = (threadgroup ushort*)pool;",
    narrow_bits="as_type<{type}>({0})",
    narrow_zero="{type}(0.0f)",
    words={2: "ushort", 4: "uint", 8: "uint2", 16: "uint4"},
    unit=SIMDGROUP_8_8,
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
    helpers=_COMMON
    | dict.fromkeys(_HALVES, helpers.METAL_HALVES)
    | dict.fromkeys(_WIDE, helpers.METAL_WIDE)
    | {"erf": helpers.METAL_ERF},
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
