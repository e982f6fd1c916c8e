"""The text of the functions that emitted code may call, in CUDA C++ and Metal; {q} is how they are declared.

What is between `#ifndef DSL_SIMULATED` and `#endif` the simulator has its own of: it watches shared memory
and the alignment of wide accesses, and meets the warp at a matrix unit.
"""

FLOOR = """\
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
TRUNCATE = """\
{q} int truncate(float x) {{
  return x != x ? 0 : x >= 2147483648.0f ? 2147483647 : x < -2147483648.0f ? -2147483647 - 1 : int(x);
}}
"""
NIBBLES = """\
{q} int nibble_byte(int c) {{ return (c >> 5) * 16 + (c & 15); }}
{q} int u4(int byte, int c) {{ return byte >> ((c >> 4 & 1) * 4) & 15; }}
{q} int i4(int byte, int c) {{ return (u4(byte, c) ^ 8) - 8; }}
"""
CUDA_HALVES = """\
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
METAL_HALVES = """\
{q} float from_f16(half h) {{ return float(h); }}
{q} half to_f16(float f) {{ return half(f); }}
{q} float from_bf16(bfloat h) {{ return float(h); }}
{q} bfloat to_bf16(float f) {{ return bfloat(f); }}
"""
METAL_ERF = """\
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
_LOAD_MATRICES = """\
{q} void <name>(unsigned (&b)[4], const unsigned short* row) {{
  unsigned at = (unsigned)__cvta_generic_to_shared(row);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4<how>.shared.b16 {{%0, %1, %2, %3}}, [%4];"
               : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]) : "r"(at));
}}
"""
_MULTIPLY = """\
{q} void mma_<kind>(float& c0, float& c1, float& c2, float& c3, const unsigned (&a)[4], unsigned b0,
                    unsigned b1) {{
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.<kind>.<kind>.f32 "
               "{{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, {{%0, %1, %2, %3}};"
               : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}}
"""
CUDA_MATRICES = (
    "#ifndef DSL_SIMULATED\n"
    "{q} unsigned pair(unsigned short x, unsigned short y) {{ return x | unsigned(y) << 16; }}\n"
    + _LOAD_MATRICES.replace("<name>", "load_matrices").replace("<how>", "")
    + _LOAD_MATRICES.replace("<name>", "load_transposed").replace("<how>", ".trans")
    + _MULTIPLY.replace("<kind>", "f16")
    + _MULTIPLY.replace("<kind>", "bf16")
    + "#endif\n"
)
_WIDE = """\
#ifndef DSL_SIMULATED
template <class V, class T, class R> {q} void fetch(<reg>R* x, bool inside, <dev>const T* from) {{
  V word = V();
  if (inside) word = *(<dev>const V*)from;
  EACH(e, int(sizeof(V) / sizeof(T))) x[e] = ((<reg>const T*)&word)[e];
}}
template <class V, class T, class R> {q} void keep(<dev>T* to, <reg>const R* x) {{
  V word;
  EACH(e, int(sizeof(V) / sizeof(T))) ((<reg>T*)&word)[e] = T(x[e]);
  *(<dev>V*)to = word;
}}
template <class V, class S, class R> {q} void put(<shared>S* to, <reg>const R* x) {{
  V word;
  EACH(e, int(sizeof(V) / sizeof(S))) ((<reg>R*)&word)[e] = x[e];
  *(<shared>V*)to = word;
}}
template <class V, class S, class R> {q} void put(<shared>S* to, <reg>const R* x, int kept) {{
  V word;
  const R zero = R(0.0f);
  EACH(e, int(sizeof(V) / sizeof(S))) {{
    if (e < kept) ((<reg>R*)&word)[e] = x[e];
    else ((<reg>R*)&word)[e] = zero;
  }}
  *(<shared>V*)to = word;
}}
#endif
"""


def _wide(registers: str, device: str, shared: str) -> str:
    """`fetch`, `keep` and `put`: from global memory, to it, and to shared memory, in words of type V.

    The arguments are the words of a pointer's address space.
    """
    return _WIDE.replace("<reg>", registers).replace("<dev>", device).replace("<shared>", shared)


CUDA_WIDE = _wide("", "", "")
METAL_WIDE = _wide("thread ", "device ", "threadgroup ")
