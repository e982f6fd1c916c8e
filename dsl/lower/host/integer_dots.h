// Dots of 32 8-bit (or 4-bit) numbers with 32 signed bytes, as lanes of partial sums: exact, whatever the bytes.
//
// Included only by kernels that need it (dsl.lower.host.running). One section for each kind of processor: dot
// instructions of AVX-512 or AVX-VNNI, AVX2 by pairs of 16 bits, NEON with sdot, and plain C++.
#if defined(__AVX2__)
#include <immintrin.h>

typedef __m256 Lanes;
INLINE Lanes no_lanes() { return _mm256_setzero_ps(); }

INLINE Lanes scaled_add(Lanes sums, __m256i part, float factor) {
#ifdef __FMA__
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(part), _mm256_set1_ps(factor), sums);
#else
  return _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(part), _mm256_set1_ps(factor)), sums);
#endif
}

INLINE float joined(Lanes sums) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}

INLINE __m256i bytes_of(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

// 16 bytes -> 32 numbers 0 to 15: low halves, then high halves.
INLINE __m256i nibbles_of(const void *p) {
  __m128i both = _mm_loadu_si128((const __m128i *)p);
  __m256i apart = _mm256_inserti128_si256(_mm256_castsi128_si256(both), _mm_srli_epi16(both, 4), 1);
  return _mm256_and_si256(apart, _mm256_set1_epi8(15));
}

#if (defined(__AVX512VNNI__) && defined(__AVX512VL__)) || defined(__AVXVNNI__)
// The instruction takes unsigned bytes on the left: signed ones are lifted by 128 (nibbles by 8), and as much
// times the sum of the right is taken away by what the lanes begin with.
INLINE __m256i four_products(__m256i sums, __m256i left, __m256i right) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return _mm256_dpbusd_epi32(sums, left, right);
#else
  return _mm256_dpbusd_avx_epi32(sums, left, right);
#endif
}

typedef __m256i Left;
struct Right { __m256i bytes, lift; };

INLINE Right right_of(const int8_t *p) {
  __m256i zero = _mm256_setzero_si256(), bytes = bytes_of(p);
  return {bytes, _mm256_sub_epi32(zero, four_products(zero, _mm256_set1_epi8((char)128), bytes))};
}

INLINE Left left_i8(const int8_t *p) { return _mm256_xor_si256(bytes_of(p), _mm256_set1_epi8((char)128)); }
INLINE Left left_u8(const uint8_t *p) { return bytes_of(p); }
INLINE Left left_u4(const uint8_t *p) { return nibbles_of(p); }
INLINE Left left_i4(const uint8_t *p) { return _mm256_xor_si256(nibbles_of(p), _mm256_set1_epi8(8)); }
INLINE __m256i dot_i8(Left a, Right b) { return four_products(b.lift, a, b.bytes); }
INLINE __m256i dot_u8(Left a, Right b) { return four_products(_mm256_setzero_si256(), a, b.bytes); }
INLINE __m256i dot_u4(Left a, Right b) { return dot_u8(a, b); }
INLINE __m256i dot_i4(Left a, Right b) { return four_products(_mm256_srai_epi32(b.lift, 4), a, b.bytes); }
#else
// 16-bit products in pairs: the 8-bit instruction of AVX2 saturates.
struct Left { __m256i low, high; };
typedef Left Right;

INLINE Left widened(__m256i bytes) {
  return {_mm256_cvtepi8_epi16(_mm256_castsi256_si128(bytes)),
          _mm256_cvtepi8_epi16(_mm256_extracti128_si256(bytes, 1))};
}

INLINE Right right_of(const int8_t *p) { return widened(bytes_of(p)); }
INLINE Left left_i8(const int8_t *p) { return widened(bytes_of(p)); }
INLINE Left left_u4(const uint8_t *p) { return widened(nibbles_of(p)); }
INLINE Left left_u8(const uint8_t *p) {
  return {_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p)),
          _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(p + 16)))};
}
INLINE Left left_i4(const uint8_t *p) {
  __m256i eight = _mm256_set1_epi8(8);
  return widened(_mm256_sub_epi8(_mm256_xor_si256(nibbles_of(p), eight), eight));
}
INLINE __m256i dot_i8(Left a, Right b) {
  return _mm256_add_epi32(_mm256_madd_epi16(a.low, b.low), _mm256_madd_epi16(a.high, b.high));
}
INLINE __m256i dot_u8(Left a, Right b) { return dot_i8(a, b); }
INLINE __m256i dot_u4(Left a, Right b) { return dot_i8(a, b); }
INLINE __m256i dot_i4(Left a, Right b) { return dot_i8(a, b); }
#endif

#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>

typedef float32x4_t Lanes;
struct Left { int8x16_t low, high; };
struct Right { int8x16_t low, high; int32x4_t lift; };

INLINE Lanes no_lanes() { return vdupq_n_f32(0); }
INLINE Lanes scaled_add(Lanes sums, int32x4_t part, float factor) {
  return vfmaq_n_f32(sums, vcvtq_f32_s32(part), factor);
}
INLINE float joined(Lanes sums) { return vaddvq_f32(sums); }
INLINE Right right_of(const int8_t *p) {
  int8x16_t low = vld1q_s8(p), high = vld1q_s8(p + 16), one = vdupq_n_s8(1);
  int32x4_t total = vdotq_s32(vdotq_s32(vdupq_n_s32(0), one, low), one, high);
  return {low, high, vshlq_n_s32(total, 7)};  // 128 times the sum, for unsigned bytes on the left
}
INLINE Left left_i8(const int8_t *p) { return {vld1q_s8(p), vld1q_s8(p + 16)}; }
INLINE Left left_u8(const uint8_t *p) {
  uint8x16_t top = vdupq_n_u8(128);
  return {vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), top)), vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p + 16), top))};
}
INLINE Left left_u4(const uint8_t *p) {
  uint8x16_t both = vld1q_u8(p);
  return {vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8(both, 4))};
}
INLINE Left left_i4(const uint8_t *p) {
  Left a = left_u4(p);
  int8x16_t eight = vdupq_n_s8(8);
  return {vsubq_s8(veorq_s8(a.low, eight), eight), vsubq_s8(veorq_s8(a.high, eight), eight)};
}
INLINE int32x4_t dot_i8(Left a, Right b) {
  return vdotq_s32(vdotq_s32(vdupq_n_s32(0), a.low, b.low), a.high, b.high);
}
INLINE int32x4_t dot_u8(Left a, Right b) {
  return vdotq_s32(vdotq_s32(b.lift, a.low, b.low), a.high, b.high);
}
INLINE int32x4_t dot_u4(Left a, Right b) { return dot_i8(a, b); }
INLINE int32x4_t dot_i4(Left a, Right b) { return dot_i8(a, b); }

#else
struct Lanes { float at[8]; };
struct Left { int16_t at[32]; };
typedef Left Right;
struct Ints { int at[8]; };

INLINE Lanes no_lanes() { return Lanes{}; }
INLINE Lanes scaled_add(Lanes sums, Ints part, float factor) {
  for (int i = 0; i < 8; i++) sums.at[i] += (float)part.at[i] * factor;
  return sums;
}
INLINE float joined(Lanes s) {
  float a[4];
  for (int i = 0; i < 4; i++) a[i] = s.at[i] + s.at[i + 4];
  return (a[0] + a[2]) + (a[1] + a[3]);
}
template <class Byte> INLINE Left bytes_at(const Byte *p) {
  Left found;
  for (int i = 0; i < 32; i++) found.at[i] = p[i];
  return found;
}
INLINE Right right_of(const int8_t *p) { return bytes_at(p); }
INLINE Left left_i8(const int8_t *p) { return bytes_at(p); }
INLINE Left left_u8(const uint8_t *p) { return bytes_at(p); }
INLINE Left left_u4(const uint8_t *p) {
  Left found;
  for (int i = 0; i < 16; i++) found.at[i] = p[i] & 15, found.at[i + 16] = p[i] >> 4;
  return found;
}
INLINE Left left_i4(const uint8_t *p) {
  Left found = left_u4(p);
  for (int i = 0; i < 32; i++) found.at[i] = (int16_t)((found.at[i] ^ 8) - 8);
  return found;
}
INLINE Ints dot_i8(const Left &a, const Right &b) {
  Ints found;
  for (int i = 0; i < 8; i++) {
    found.at[i] = 0;
    for (int j = 0; j < 4; j++) found.at[i] += a.at[i * 4 + j] * b.at[i * 4 + j];
  }
  return found;
}
INLINE Ints dot_u8(const Left &a, const Right &b) { return dot_i8(a, b); }
INLINE Ints dot_u4(const Left &a, const Right &b) { return dot_i8(a, b); }
INLINE Ints dot_i4(const Left &a, const Right &b) { return dot_i8(a, b); }
#endif
