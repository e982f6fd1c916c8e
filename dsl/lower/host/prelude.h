// What the C++ that dsl.lower.host emits calls: conversions, integer division, exp and its kin, dot.
//
// All functions are straight-line code without tables, so that compilers vectorise loops over them. NaN
// and infinities are kept; XLA runs its threads with subnormals flushed to zero. Accuracy against float64, in units of the last place, over their ranges:
// exp 1.5, log 1.5, tanh 2, erf 4.
#include <cstddef>
#include <cstdint>
#include <cstring>

#define INLINE static inline __attribute__((always_inline))

// Where a window reads that lies outside of its Ref as a whole: never written.
alignas(64) static unsigned char absent[1 << 15];

INLINE float as_float(uint32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
INLINE uint32_t as_bits(float x) { uint32_t bits; memcpy(&bits, &x, 4); return bits; }

INLINE float of_f16(uint16_t h) {
  uint32_t kept = (uint32_t)(h & 0x7fff) << 13;
  float scaled = as_float(kept) * as_float(0x77800000);  // 2^112; exact for subnormals too
  uint32_t special = as_bits(scaled) | 0x7f800000;
  uint32_t bits = (h & 0x7c00) == 0x7c00 ? special : as_bits(scaled);
  return as_float(bits | (uint32_t)(h & 0x8000) << 16);
}

INLINE uint16_t to_f16(float x) {
  uint32_t bits = as_bits(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  uint32_t small = as_bits(as_float(size) + 0.5f) - 0x3f000000;  // subnormal: the adder rounds
  uint32_t normal = (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13;
  uint32_t found = size < 0x38800000 ? small : normal;
  found = size >= 0x477ff000 ? 0x7c00 : found;
  found = size > 0x7f800000 ? 0x7e00 : found;
  return (uint16_t)(found | sign);
}

INLINE float of_bf16(uint16_t h) { return as_float((uint32_t)h << 16); }

INLINE uint16_t to_bf16(float x) {
  uint32_t bits = as_bits(x);
  uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16 | 0x40) : rounded);
}

// Truncates; saturates; NaN gives 0.
INLINE int to_i32(float x) {
  float clipped = x >= 2147483520.0f ? 2147483520.0f : x;
  clipped = clipped <= -2147483648.0f ? -2147483648.0f : clipped;
  clipped = x != x ? 0.0f : clipped;
  int found = (int)clipped;
  return x >= 2147483648.0f ? 2147483647 : found;
}

// Floor division; a division by zero gives 0 instead of a signal.
INLINE int idiv(int a, int b) {
  int by = b == 0 || b == -1 ? 1 : b;
  int q = a / by, r = a % by;
  q -= r != 0 && (r < 0) != (by < 0);
  return b == 0 ? 0 : b == -1 ? (int)(0u - (uint32_t)a) : q;
}

INLINE int mod(int a, int b) {
  int by = b == 0 || b == -1 ? 1 : b;
  int r = a % by;
  return r != 0 && (r < 0) != (by < 0) ? r + by : r;
}

INLINE int shr(int a, int b) { return a >> ((uint32_t)b > 31 ? 31 : b); }

INLINE int popcount(int a) {
  uint32_t x = (uint32_t)a;
  x -= x >> 1 & 0x55555555;
  x = (x & 0x33333333) + (x >> 2 & 0x33333333);
  return (int)(((x + (x >> 4)) & 0x0f0f0f0f) * 0x01010101 >> 24);
}

// Polynomial of Cephes' expf after reduction by ln 2 in two parts; 2^n in two steps, for subnormals.
INLINE float exp_f32(float x) {
  float y = x > 89.0f ? 89.0f : x;
  y = y < -104.0f ? -104.0f : y;
  float shifted = y * 1.44269504f + 12582912.0f;
  int n = (int)(as_bits(shifted) - 0x4b400000);
  float whole = shifted - 12582912.0f;
  float r = y - whole * 0.693359375f;
  r = r + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  n = y != y ? 0 : n;
  int half = n >> 1;
  p = p * as_float((uint32_t)(half + 127) << 23) * as_float((uint32_t)(n - half + 127) << 23);
  return x != x ? x : p;
}

// Cephes' logf.
INLINE float log_f32(float x) {
  float y = x < 1.17549435e-38f ? x * 8388608.0f : x;
  float lifted = x < 1.17549435e-38f ? -23.0f : 0.0f;
  uint32_t bits = as_bits(y);
  int exponent = (int)(bits >> 23 & 255) - 126;
  float m = as_float((bits & 0x007fffff) | 0x3f000000);
  int low = m < 0.707106781f;
  float e = (float)(exponent - low) + lifted;
  m = (low ? m + m : m) - 1.0f;
  float z = m * m;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  float found = p * m * z - 2.12194440e-4f * e - 0.5f * z + m + 0.693359375f * e;
  found = x == 0.0f ? -__builtin_inff() : found;
  found = x < 0.0f ? __builtin_nanf("") : found;
  return x != x || x == __builtin_inff() ? x : found;
}

// Cephes' tanhf: a polynomial near 0, else by exp.
INLINE float tanh_f32(float x) {
  float size = __builtin_fabsf(x), z = x * x;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  float near = p * z * x + x;
  float far = 1.0f - 2.0f / (exp_f32(size + size) + 1.0f);
  far = as_float(as_bits(far) | (as_bits(x) & 0x80000000));
  return size < 0.625f ? near : x != x ? x : far;
}

// The rational approximation of Eigen and XLA.
INLINE float erf_f32(float x) {
  float y = x > 4.0f ? 4.0f : x;
  y = y < -4.0f ? -4.0f : y;
  float z = y * y;
  float p = -2.72614225801306e-10f;
  p = p * z + 2.77068142495902e-08f;
  p = p * z - 2.10102402082508e-06f;
  p = p * z - 5.69250639462346e-05f;
  p = p * z - 7.34990630326855e-04f;
  p = p * z - 2.95459980854025e-03f;
  p = p * z - 1.60960333262415e-02f;
  float q = -1.45660718464996e-05f;
  q = q * z - 2.13374055278905e-04f;
  q = q * z - 1.68282697438203e-03f;
  q = q * z - 7.37332916720468e-03f;
  q = q * z - 1.42647390514189e-02f;
  return y * (p / q);
}

// The sum of 16 floats, halving: a tree of scalar adds would cost more than the loop before it.
INLINE float total_of(const float *lanes) {
  typedef float Eight __attribute__((vector_size(32)));
  typedef float Four __attribute__((vector_size(16)));
  Eight low, high;
  memcpy(&low, lanes, 32), memcpy(&high, lanes + 8, 32);
  low += high;
  Four a = {low[0], low[1], low[2], low[3]}, b = {low[4], low[5], low[6], low[7]};
  a += b;
  return (a[0] + a[2]) + (a[1] + a[3]);
}

#ifdef __AVX512F__
static const long WIDE = 32;
#else
static const long WIDE = 16;
#endif

// o[R][W] = a[R][K] b[K][W], the sums in registers. `as`, `bs` and `os` are strides of rows.
template <long R, long W>
INLINE void dot_block(const float *__restrict a, long as, const float *__restrict b, long bs,
                      float *__restrict o, long os, long K) {
  alignas(64) float sums[R * W];
  for (long i = 0; i < R * W; i++) sums[i] = 0;
  for (long k = 0; k < K; k++) {
#pragma GCC unroll 4
    for (long i = 0; i < R; i++) {
      float left = a[i * as + k];
#pragma omp simd
      for (long j = 0; j < W; j++) sums[i * W + j] += left * b[k * bs + j];
    }
  }
  for (long i = 0; i < R; i++)
    for (long j = 0; j < W; j++) o[i * os + j] = sums[i * W + j];
}

template <long R>
INLINE void dot_rows(const float *__restrict a, long as, const float *__restrict b, long bs,
                     float *__restrict o, long os, long N, long K) {
  long j = 0;
  for (; j + WIDE <= N; j += WIDE) dot_block<R, WIDE>(a, as, b + j, bs, o + j, os, K);
  for (; j + 8 <= N; j += 8) dot_block<R, 8>(a, as, b + j, bs, o + j, os, K);
  for (; j < N; j++) dot_block<R, 1>(a, as, b + j, bs, o + j, os, K);
}

// o (M, N) = a (M, K) @ b (K, N).
static void dot(const float *__restrict a, long as, const float *__restrict b, long bs, float *__restrict o,
                long M, long N, long K) {
  long i = 0;
  for (; i + 4 <= M; i += 4) dot_rows<4>(a + i * as, as, b, bs, o + i * N, N, N, K);
  if (M - i == 3) dot_rows<3>(a + i * as, as, b, bs, o + i * N, N, N, K);
  if (M - i == 2) dot_rows<2>(a + i * as, as, b, bs, o + i * N, N, N, K);
  if (M - i == 1) dot_rows<1>(a + i * as, as, b, bs, o + i * N, N, N, K);
}

// o (M, N) = a (M, K) @ b (N, K)^T: by rows for a few of them, else after transposing into `turned` (K, N).
static void dot_transposed(const float *__restrict a, long as, const float *__restrict b, long bs,
                           float *__restrict o, float *__restrict turned, long M, long N, long K) {
  if (M > 2) {
    for (long j = 0; j < N; j++)
      for (long k = 0; k < K; k++) turned[k * N + j] = b[j * bs + k];
    dot(a, as, turned, N, o, M, N, K);
    return;
  }
  for (long i = 0; i < M; i++)
    for (long j = 0; j < N; j++) {
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (long k = 0; k < K; k++) sum += a[i * as + k] * b[j * bs + k];
      o[i * N + j] = sum;
    }
}
