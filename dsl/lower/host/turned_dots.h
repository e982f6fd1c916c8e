// Dots of 16 rows of 32 weights of 8 or 4 bits with 32 numbers of 16, a lane a row: exact, whatever the numbers.
//
// Included only by kernels that need it (dsl.lower.host.turned). For AVX-512 with VNNI, whose dot instruction
// takes unsigned bytes times signed ones: the high bytes of signed weights' partners are lifted by 128, and what
// that adds is taken off again.
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define TURNED
#include <immintrin.h>

typedef __m512 Column;
struct Signed { __m512i at[8], taken; };  // dwords of 4 weights, in order; -128 times the sums of all 32
struct Unsigned { __m512i at[8]; };

INLINE Column column_of(float x) { return _mm512_set1_ps(x); }
INLINE void put_column(float *p, Column x) { _mm512_storeu_ps(p, x); }

// Every STRIDE-th of 16 rows: sixteen loads, which cost a fraction of what a gather does on many processors.
template <long STRIDE> INLINE Column column_at(const float *p) {
  if (STRIDE == 1) return _mm512_loadu_ps(p);
  __m512 x = _mm512_castps128_ps512(_mm_setr_ps(p[0], p[STRIDE], p[2 * STRIDE], p[3 * STRIDE]));
  p += 4 * STRIDE;
  x = _mm512_insertf32x4(x, _mm_setr_ps(p[0], p[STRIDE], p[2 * STRIDE], p[3 * STRIDE]), 1);
  p += 4 * STRIDE;
  x = _mm512_insertf32x4(x, _mm_setr_ps(p[0], p[STRIDE], p[2 * STRIDE], p[3 * STRIDE]), 2);
  p += 4 * STRIDE;
  return _mm512_insertf32x4(x, _mm_setr_ps(p[0], p[STRIDE], p[2 * STRIDE], p[3 * STRIDE]), 3);
}

INLINE Column scaled_add(Column sums, __m512i part, Column factor) {
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(part), factor, sums);
}

// What lies `block` and twice `block` bytes further, the farther part into the second level of cache only: the
// first level cannot have enough lines on their way to keep memory busy.
template <int LINES> INLINE void fetch_ahead(const void *p, long block, long done) {
  const char *next = (const char *)p + block + done;
#pragma GCC unroll 8
  for (int i = 0; i < LINES; i++) __builtin_prefetch(next + 64 * i, 0, 3);
#pragma GCC unroll 8
  for (int i = 0; i < LINES; i++) __builtin_prefetch(next + block + 64 * i, 0, 2);
}

// 16 bytes of each of rows 0, 4, 8 and 12.
INLINE __m512i four_rows(const void *p, long stride) {
  const char *row = (const char *)p;
  __m512i x = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)row));
  x = _mm512_inserti32x4(x, _mm_loadu_si128((const __m128i *)(row + 4 * stride)), 1);
  x = _mm512_inserti32x4(x, _mm_loadu_si128((const __m128i *)(row + 8 * stride)), 2);
  return _mm512_inserti32x4(x, _mm_loadu_si128((const __m128i *)(row + 12 * stride)), 3);
}

// 16 bytes of 16 rows -> dword i of every row in to[i].
INLINE void turn(__m512i *to, const void *p, long stride) {
  const char *row = (const char *)p;
  __m512i a = four_rows(row, stride), b = four_rows(row + stride, stride);
  __m512i c = four_rows(row + 2 * stride, stride), d = four_rows(row + 3 * stride, stride);
  __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
  to[0] = _mm512_unpacklo_epi64(ab, cd), to[1] = _mm512_unpackhi_epi64(ab, cd);
  ab = _mm512_unpackhi_epi32(a, b), cd = _mm512_unpackhi_epi32(c, d);
  to[2] = _mm512_unpacklo_epi64(ab, cd), to[3] = _mm512_unpackhi_epi64(ab, cd);
}

INLINE void take_lift(Signed &w) {
  __m512i one = _mm512_set1_epi8(1), a = _mm512_setzero_si512(), b = a;
  for (int i = 0; i < 8; i += 2) {
    a = _mm512_dpbusd_epi32(a, one, w.at[i]);
    b = _mm512_dpbusd_epi32(b, one, w.at[i + 1]);
  }
  w.taken = _mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), _mm512_add_epi32(a, b)), 7);
}

INLINE Signed turned_i8(const int8_t *p, long stride) {
  Signed w;
  turn(w.at, p, stride), turn(w.at + 4, p + 16, stride);
  take_lift(w);
  return w;
}

INLINE Unsigned turned_u4(const uint8_t *p, long stride) {
  Unsigned w;
  __m512i half = _mm512_set1_epi8(15);
  turn(w.at, p, stride);
  for (int i = 0; i < 4; i++) {
    w.at[i + 4] = _mm512_and_si512(_mm512_srli_epi16(w.at[i], 4), half);
    w.at[i] = _mm512_and_si512(w.at[i], half);
  }
  return w;
}

INLINE Signed turned_i4(const uint8_t *p, long stride) {
  Unsigned raw = turned_u4(p, stride);
  Signed w;
  __m512i eight = _mm512_set1_epi8(8);
  for (int i = 0; i < 8; i++) w.at[i] = _mm512_sub_epi8(_mm512_xor_si512(raw.at[i], eight), eight);
  take_lift(w);
  return w;
}

INLINE __m512i four_of(const void *p) {
  int x;
  memcpy(&x, p, 4);
  return _mm512_set1_epi32(x);
}

INLINE __m512i dot_of(const Signed &w, const int8_t *high, const uint8_t *low) {
  alignas(32) uint8_t lifted[32];
  __m256i x = _mm256_loadu_si256((const __m256i *)high);
  _mm256_store_si256((__m256i *)lifted, _mm256_xor_si256(x, _mm256_set1_epi8(-128)));
  __m512i above = w.taken, below = _mm512_setzero_si512();
  for (int i = 0; i < 8; i++) {
    above = _mm512_dpbusd_epi32(above, four_of(lifted + 4 * i), w.at[i]);
    below = _mm512_dpbusd_epi32(below, four_of(low + 4 * i), w.at[i]);
  }
  return _mm512_add_epi32(_mm512_slli_epi32(above, 8), below);
}

INLINE __m512i dot_of(const Unsigned &w, const int8_t *high, const uint8_t *low) {
  __m512i above = _mm512_setzero_si512(), below = above;
  for (int i = 0; i < 8; i++) {
    above = _mm512_dpbusd_epi32(above, w.at[i], four_of(high + 4 * i));
    below = _mm512_dpbusd_epi32(below, four_of(low + 4 * i), w.at[i]);
  }
  return _mm512_add_epi32(_mm512_slli_epi32(above, 8), below);
}
#endif
