// Dots of 32 numbers of 8 or 4 bits with 32 of 8 or 16, as lanes of partial sums: exact, whatever the numbers.
//
// Included only by kernels that need it (dsl.lower.host.running). x86 widens both sides to 16 bits and adds
// products in pairs (vpdpwssd or vpmaddwd: nothing saturates, as the 8-bit instruction of AVX2 would); NEON
// has sdot for bytes; elsewhere it is plain C++. Right: what many rows on the left meet, made once.
#if defined(__AVX512BW__) || defined(__AVX2__)
#include <immintrin.h>

// 16 bytes -> 32 numbers 0 to 15: low halves, then high halves.
INLINE __m256i nibbles_of(const void *p) {
  __m128i both = _mm_loadu_si128((const __m128i *)p);
  __m256i apart = _mm256_inserti128_si256(_mm256_castsi128_si256(both), _mm_srli_epi16(both, 4), 1);
  return _mm256_and_si256(apart, _mm256_set1_epi8(15));
}
INLINE __m256i bytes_of(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE __m256i signed_nibbles_of(const void *p) {
  __m256i eight = _mm256_set1_epi8(8);
  return _mm256_sub_epi8(_mm256_xor_si256(nibbles_of(p), eight), eight);
}
INLINE float joined_256(__m256 sums) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}
#endif

#if defined(__AVX512BW__)
typedef __m512 Lanes;
typedef __m512i Left, Right, Parts;

INLINE Lanes no_lanes() { return _mm512_setzero_ps(); }
INLINE Lanes scaled_add(Lanes sums, Parts part, float factor) {
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(part), _mm512_set1_ps(factor), sums);
}
INLINE float joined(Lanes sums) {
  __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(sums), 1));
  return joined_256(_mm256_add_ps(_mm512_castps512_ps256(sums), high));
}
INLINE Left left_i8(const int8_t *p) { return _mm512_cvtepi8_epi16(bytes_of(p)); }
INLINE Left left_u8(const uint8_t *p) { return _mm512_cvtepu8_epi16(bytes_of(p)); }
INLINE Left left_i4(const uint8_t *p) { return _mm512_cvtepi8_epi16(signed_nibbles_of(p)); }
INLINE Left left_u4(const uint8_t *p) {
  __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
  __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(wide), _mm256_srli_epi16(wide, 4), 1);
  return _mm512_and_si512(both, _mm512_set1_epi16(15));
}
INLINE Right right_of(const int8_t *p) { return left_i8(p); }
INLINE Right right_of(const int8_t *high, const uint8_t *low) {
  return _mm512_or_si512(_mm512_slli_epi16(left_i8(high), 8), left_u8(low));
}
INLINE Parts dot_of(Left a, Right b) {
#ifdef __AVX512VNNI__
  return _mm512_dpwssd_epi32(_mm512_setzero_si512(), a, b);
#else
  return _mm512_madd_epi16(a, b);
#endif
}

#elif defined(__AVX2__)
typedef __m256 Lanes;
struct Left { __m256i low, high; };
typedef Left Right;
typedef __m256i Parts;

INLINE Lanes no_lanes() { return _mm256_setzero_ps(); }
INLINE Lanes scaled_add(Lanes sums, Parts part, float factor) {
#ifdef __FMA__
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(part), _mm256_set1_ps(factor), sums);
#else
  return _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(part), _mm256_set1_ps(factor)), sums);
#endif
}
INLINE float joined(Lanes sums) { return joined_256(sums); }
INLINE Left widened(__m256i bytes) {
  return {_mm256_cvtepi8_epi16(_mm256_castsi256_si128(bytes)),
          _mm256_cvtepi8_epi16(_mm256_extracti128_si256(bytes, 1))};
}
INLINE Left left_i8(const int8_t *p) { return widened(bytes_of(p)); }
INLINE Left left_u8(const uint8_t *p) {
  return {_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p)),
          _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(p + 16)))};
}
INLINE Left left_i4(const uint8_t *p) { return widened(signed_nibbles_of(p)); }
INLINE Left left_u4(const uint8_t *p) {
  __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
  return {_mm256_and_si256(wide, _mm256_set1_epi16(15)), _mm256_srli_epi16(wide, 4)};
}
INLINE Right right_of(const int8_t *p) { return left_i8(p); }
INLINE Right right_of(const int8_t *high, const uint8_t *low) {
  Left a = left_i8(high), b = left_u8(low);
  return {_mm256_or_si256(_mm256_slli_epi16(a.low, 8), b.low),
          _mm256_or_si256(_mm256_slli_epi16(a.high, 8), b.high)};
}
INLINE Parts dot_of(Left a, Right b) {
  return _mm256_add_epi32(_mm256_madd_epi16(a.low, b.low), _mm256_madd_epi16(a.high, b.high));
}

#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>

typedef float32x4_t Lanes;
typedef int32x4_t Parts;
struct Left { int8x16_t low, high; int lift; };  // unsigned bytes are lowered by 128: `lift` is 128, else 0
struct Bytes { int8x16_t low, high; int32x4_t total; };
struct Pair { Bytes high, low; };

INLINE Lanes no_lanes() { return vdupq_n_f32(0); }
INLINE Lanes scaled_add(Lanes sums, Parts part, float factor) {
  return vfmaq_n_f32(sums, vcvtq_f32_s32(part), factor);
}
INLINE float joined(Lanes sums) { return vaddvq_f32(sums); }
INLINE Left left_i8(const int8_t *p) { return {vld1q_s8(p), vld1q_s8(p + 16), 0}; }
INLINE Left left_u8(const uint8_t *p) {
  uint8x16_t top = vdupq_n_u8(128);
  return {vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), top)), vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p + 16), top)),
          128};
}
INLINE Left left_u4(const uint8_t *p) {
  uint8x16_t both = vld1q_u8(p);
  return {vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8(both, 4)), 0};
}
INLINE Left left_i4(const uint8_t *p) {
  Left a = left_u4(p);
  int8x16_t eight = vdupq_n_s8(8);
  return {vsubq_s8(veorq_s8(a.low, eight), eight), vsubq_s8(veorq_s8(a.high, eight), eight), 0};
}
INLINE Bytes right_of(const int8_t *p) {
  int8x16_t low = vld1q_s8(p), high = vld1q_s8(p + 16), one = vdupq_n_s8(1);
  return {low, high, vdotq_s32(vdotq_s32(vdupq_n_s32(0), one, low), one, high)};
}
INLINE Pair right_of(const int8_t *high, const uint8_t *low) {
  uint8x16_t top = vdupq_n_u8(128);  // the low bytes are lowered by 128 too
  int8_t lowered[32];
  vst1q_s8(lowered, vreinterpretq_s8_u8(veorq_u8(vld1q_u8(low), top)));
  vst1q_s8(lowered + 16, vreinterpretq_s8_u8(veorq_u8(vld1q_u8(low + 16), top)));
  return {right_of(high), right_of(lowered)};
}
INLINE Parts dot_of(Left a, Bytes b) {
  int32x4_t start = vmulq_n_s32(b.total, a.lift);
  return vdotq_s32(vdotq_s32(start, a.low, b.low), a.high, b.high);
}
INLINE Parts dot_of(Left a, Pair b) {
  int8x16_t one = vdupq_n_s8(1);
  int32x4_t total = vdotq_s32(vdotq_s32(vdupq_n_s32(8 * a.lift), a.low, one), a.high, one);
  return vaddq_s32(vshlq_n_s32(dot_of(a, b.high), 8), vaddq_s32(dot_of(a, b.low), vshlq_n_s32(total, 7)));
}

#else
struct Lanes { float at[8]; };
struct Left { int at[32]; };
typedef Left Right;
struct Parts { int at[8]; };

INLINE Lanes no_lanes() { return Lanes{}; }
INLINE Lanes scaled_add(Lanes sums, const Parts &part, float factor) {
  for (int i = 0; i < 8; i++) sums.at[i] += (float)part.at[i] * factor;
  return sums;
}
INLINE float joined(const Lanes &s) {
  float a[4];
  for (int i = 0; i < 4; i++) a[i] = s.at[i] + s.at[i + 4];
  return (a[0] + a[2]) + (a[1] + a[3]);
}
template <class Byte> INLINE Left bytes_at(const Byte *p) {
  Left found;
  for (int i = 0; i < 32; i++) found.at[i] = p[i];
  return found;
}
INLINE Left left_i8(const int8_t *p) { return bytes_at(p); }
INLINE Left left_u8(const uint8_t *p) { return bytes_at(p); }
INLINE Left left_u4(const uint8_t *p) {
  Left found;
  for (int i = 0; i < 16; i++) found.at[i] = p[i] & 15, found.at[i + 16] = p[i] >> 4;
  return found;
}
INLINE Left left_i4(const uint8_t *p) {
  Left found = left_u4(p);
  for (int i = 0; i < 32; i++) found.at[i] = (found.at[i] ^ 8) - 8;
  return found;
}
INLINE Right right_of(const int8_t *p) { return bytes_at(p); }
INLINE Right right_of(const int8_t *high, const uint8_t *low) {
  Left a = bytes_at(high), b = bytes_at(low);
  for (int i = 0; i < 32; i++) a.at[i] = a.at[i] * 256 + b.at[i];
  return a;
}
INLINE Parts dot_of(const Left &a, const Right &b) {
  Parts found;
  for (int i = 0; i < 8; i++) {
    found.at[i] = 0;
    for (int j = 0; j < 4; j++) found.at[i] += a.at[i + j * 8] * b.at[i + j * 8];
  }
  return found;
}
#endif
