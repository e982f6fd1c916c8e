"""The simulator's matrix units against plain products, fragments laid out by the tables of their makers."""

import math

import numpy as np
import pytest

from dsl.ir.ops import Kernel
from dsl.ir.types import RefType
from dsl.lower.c.dialects import CUDA, METAL
from dsl.lower.c.emit import Program
from dsl.targets.sim.run import Caught, simulate

# PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type": each row of 8 x 8 is held by four
# threads, two neighbours each. The same figure serves ldmatrix.
THREADS = (
    (0, 1, 2, 3),
    (4, 5, 6, 7),
    (8, 9, 10, 11),
    (12, 13, 14, 15),
    (16, 17, 18, 19),
    (20, 21, 22, 23),
    (24, 25, 26, 27),
    (28, 29, 30, 31),
)
# The elements a0 .. a7 of a thread by quarter of A: rows 0-7 and 8-15, columns 0-7 and 8-15.
A_ELEMENTS = ((("a0", "a1"), ("a4", "a5")), (("a2", "a3"), ("a6", "a7")))
# b0 .. b3 by rows 0-7 and 8-15 of B; the figure of B has a column for each row of `THREADS`.
B_ELEMENTS = (("b0", "b1"), ("b2", "b3"))
# c0 .. c3 by rows 0-7 and 8-15 of C.
C_ELEMENTS = (("c0", "c1"), ("c2", "c3"))

# simdgroup_matrix: the lane of each pair of neighbours, as MLX and llama.cpp's tables have it.
APPLE = (
    (0, 0, 1, 1, 8, 8, 9, 9),
    (2, 2, 3, 3, 10, 10, 11, 11),
    (4, 4, 5, 5, 12, 12, 13, 13),
    (6, 6, 7, 7, 14, 14, 15, 15),
    (16, 16, 17, 17, 24, 24, 25, 25),
    (18, 18, 19, 19, 26, 26, 27, 27),
    (20, 20, 21, 21, 28, 28, 29, 29),
    (22, 22, 23, 23, 30, 30, 31, 31),
)
NARROW = ("f16", "bf16")


def number(name):
    return int(name[1:])


def bits(matrix, dtype):
    """16-bit patterns of small whole numbers and halves, exact in both dtypes."""
    if dtype == "f16":
        return matrix.astype(np.float16).view(np.uint16)
    return (matrix.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def small(*shape, seed):
    return np.random.default_rng(seed).integers(-16, 17, shape) / 2.0


def run(dialect, refs, body, arrays):
    """A program of one warp; the helpers that its text names are defined before it."""
    ir = Kernel("unit", refs, (1,), ())
    named = [(ref, f"{ref.name}_ref") for ref in refs]
    head = dialect.prologue + dialect.definitions(body) + dialect.signature("unit_kernel", named, 32)
    program = Program(head + body + "\n}\n", "unit_kernel", refs, 1, 32, 0, "by hand")
    return simulate(ir, dialect, program, arrays, (0, 1, 2))[0]


@pytest.mark.parametrize("dtype", NARROW)
def test_mma_is_a_product_of_fragments_laid_out_as_nvidia_says(dtype):
    a, b, c = small(16, 16, seed=0), small(16, 8, seed=1), small(16, 8, seed=2)
    left, right = np.zeros((32, 8), np.uint16), np.zeros((32, 4), np.uint16)
    sums = np.zeros((32, 4), np.float32)
    for g, threads in enumerate(THREADS):
        for t, thread in enumerate(threads):
            for e in (0, 1):
                for below in (0, 1):
                    for beyond in (0, 1):
                        place = number(A_ELEMENTS[below][beyond][e])
                        left[thread, place] = bits(a, dtype)[8 * below + g, 8 * beyond + 2 * t + e]
                    right[thread, number(B_ELEMENTS[below][e])] = bits(b, dtype)[8 * below + 2 * t + e, g]
                    sums[thread, number(C_ELEMENTS[below][e])] = c[8 * below + g, 2 * t + e]
    refs = (
        RefType("a", "i32", (32, 4)),
        RefType("b", "i32", (32, 2)),
        RefType("c", "f32", (32, 4)),
        RefType("o", "f32", (32, 4), "out"),
    )
    body = f"""  unsigned a[4];
  float c[4];
  EACH(i, 4) {{ a[i] = unsigned(a_ref[4 * lane + i]); c[i] = c_ref[4 * lane + i]; }}
  mma_{dtype}(c[0], c[1], c[2], c[3], a, unsigned(b_ref[2 * lane]), unsigned(b_ref[2 * lane + 1])); // pair()
  EACH(i, 4) o_ref[4 * lane + i] = c[i];"""
    found = run(CUDA, refs, body, [left.view(np.int32), right.view(np.int32), sums])
    product = a @ b + c
    for g, threads in enumerate(THREADS):
        for t, thread in enumerate(threads):
            for below in (0, 1):
                for e in (0, 1):
                    given = found[thread, number(C_ELEMENTS[below][e])]
                    assert given == product[8 * below + g, 2 * t + e]


LOAD = """  __shared__ __align__(16) float pool[128];
  unsigned short* const halves = (unsigned short*)pool;
  EACH(i, 4) pool[4 * lane + i] = __int_as_float(x_ref[4 * lane + i]);
  __syncthreads();
  unsigned b[4];
  {load}(b, halves + {place}); // pair()
  EACH(i, 4) o_ref[4 * lane + i] = int(b[i]);"""
LOADED = (RefType("x", "i32", (128,)), RefType("o", "i32", (32, 4), "out"))


@pytest.mark.parametrize("load", ["load_matrices", "load_transposed"])
def test_ldmatrix_gives_each_thread_the_pairs_that_nvidia_says(load):
    matrices = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)
    found = run(CUDA, LOADED, LOAD.format(load=load, place="8 * lane"), [matrices.reshape(-1).view(np.int32)])
    for m, matrix in enumerate(matrices if load == "load_matrices" else matrices.transpose(0, 2, 1)):
        for g, threads in enumerate(THREADS):
            for t, thread in enumerate(threads):
                word = int(found[thread, m])
                assert (word & 0xFFFF, word >> 16) == tuple(matrix[g, 2 * t : 2 * t + 2])


@pytest.mark.parametrize("dtype", [*NARROW, "f32"])
def test_simdgroup_matrices_multiply_by_the_map_of_lanes(dtype):
    a, b, c = (small(8, 8, seed=seed) for seed in range(3))
    given = np.zeros((3, 64), np.float32)
    for row in range(8):
        for column in range(8):
            for matrix, data in enumerate((a, b, c)):
                given[matrix, 2 * APPLE[row][column] + column % 2] = data[row, column]
    kind = METAL.types[dtype]
    body = f"""  simdgroup_matrix<{kind}, 8, 8> a, b;
  simdgroup_matrix<float, 8, 8> c;
  EACH(e, 2) a.thread_elements()[e] = {kind}(x_ref[2 * lane + e]);
  EACH(e, 2) b.thread_elements()[e] = {kind}(x_ref[64 + 2 * lane + e]);
  EACH(e, 2) c.thread_elements()[e] = x_ref[128 + 2 * lane + e];
  simdgroup_multiply_accumulate(c, a, b, c);
  EACH(e, 2) o_ref[2 * lane + e] = c.thread_elements()[e];"""
    found = run(
        METAL, (RefType("x", "f32", (192,)), RefType("o", "f32", (64,), "out")), body, [given.reshape(-1)]
    )
    product = a @ b + c
    for row in range(8):
        for column in range(8):
            assert found[2 * APPLE[row][column] + column % 2] == product[row, column]


BROKEN = {
    "half of the warp": (
        "  if (lane < 16) {{ unsigned b[4]; load_matrices(b, halves + 8 * lane); }} // pair()\n",
        "divergent warp operation",
    ),
    "two operations": (
        "  unsigned b[4];\n  if (lane < 16) load_matrices(b, halves + 8 * lane);\n"
        "  else load_transposed(b, halves + 8 * lane); // pair()\n",
        "divergent warp operation",
    ),
    "rows that are not aligned": (
        "  unsigned b[4]; load_matrices(b, halves + 4 * lane); // pair()\n",
        "not aligned",
    ),
    "a race of halves": ("  halves[lane / 2] = 1;\n", "race"),
    "halves past the end": ("  halves[256 + lane] = 1;\n", "has 256 elements and"),
    "wide reads that are not aligned": (
        "  unsigned short t[4]; fetch<uint2>(t, true, (const unsigned short*)x_ref + 2 * lane);\n",
        "an access of 8 bytes x is not aligned",
    ),
    "a wide write that is not aligned": (
        "  unsigned short t[4] = {{}}; put<uint2>(halves + 6 * lane, t);\n",
        "of shared memory is not aligned",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_no_gpu_does_right_is_caught(name):
    body, told = BROKEN[name]
    head = LOAD.split("  EACH")[0]
    with pytest.raises(Caught, match=told):
        run(CUDA, LOADED, head + body.replace("{{", "{").replace("}}", "}"), [np.zeros(128, np.int32)])


def test_the_tables_name_each_element_once():
    assert sorted(thread for threads in THREADS for thread in threads) == list(range(32))
    assert sorted(lane for lanes in APPLE for lane in lanes) == sorted(2 * list(range(32)))
    assert math.prod(np.shape(A_ELEMENTS)) == len(set(np.ravel(A_ELEMENTS))) == 8
