// A vector of float32 numbers as long as the processor's, and what is done to one.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

constexpr int64_t kLanes = LANES;
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));

INLINE Lanes Fill(float x) { return x - Lanes{}; }

INLINE Lanes Load(const float* from) {
  Lanes found;
  std::memcpy(&found, from, sizeof(found));
  return found;
}

INLINE void Store(float* to, Lanes x) { std::memcpy(to, &x, sizeof(x)); }

#if LANES == 16
INLINE __mmask16 Mask(int64_t count) { return static_cast<__mmask16>((1u << count) - 1); }
#elif LANES == 8
INLINE __m256i Mask(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// The first `count` numbers, and zeros.
INLINE Lanes Load(const float* from, int64_t count) {
  if (count >= kLanes) return Load(from);
#if LANES == 16
  return (Lanes)_mm512_maskz_loadu_ps(Mask(count), from);
#elif LANES == 8
  return (Lanes)_mm256_maskload_ps(from, Mask(count));
#else
  Lanes found{};
  for (int64_t i = 0; i < count; ++i) found[i] = from[i];
  return found;
#endif
}

INLINE void Store(float* to, Lanes x, int64_t count) {
  if (count >= kLanes) return Store(to, x);
#if LANES == 16
  _mm512_mask_storeu_ps(to, Mask(count), (__m512)x);
#elif LANES == 8
  _mm256_maskstore_ps(to, Mask(count), (__m256)x);
#else
  for (int64_t i = 0; i < count; ++i) to[i] = x[i];
#endif
}

// With zeros from the lane `count` on.
INLINE Lanes First(Lanes x, int64_t count) {
  if (count >= kLanes) return x;
#if LANES == 16
  return (Lanes)_mm512_maskz_mov_ps(Mask(count), (__m512)x);
#elif LANES == 8
  return (Lanes)_mm256_and_ps((__m256)x, (__m256)Mask(count));
#else
  for (int64_t i = count; i < kLanes; ++i) x[i] = 0;
  return x;
#endif
}

INLINE float Total(Lanes x) {
#if LANES == 16
  x += __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
  x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7);
#elif LANES == 8
  x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 4, 5, 6, 7);
#endif
  return (x[0] + x[1]) + (x[2] + x[3]);
}

// Intrinsics return their second argument where one is NaN, so that a NaN stays.
INLINE Lanes Rectified(Lanes x) {
#if LANES == 16
  return (Lanes)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x);
#elif LANES == 8
  return (Lanes)_mm256_max_ps(_mm256_setzero_ps(), (__m256)x);
#elif defined(__SSE2__)
  return (Lanes)_mm_max_ps(_mm_setzero_ps(), (__m128)x);
#else
  return 0.0f > x ? Lanes{} : x;
#endif
}

// To a few units in the last place, of positive numbers: an estimate and a step of Newton's method.
INLINE Lanes InverseRoot(Lanes x) {
#if LANES == 16
  const Lanes y = (Lanes)_mm512_rsqrt14_ps((__m512)x);
#elif LANES == 8
  const Lanes y = (Lanes)_mm256_rsqrt_ps((__m256)x);
#elif defined(__SSE2__)
  const Lanes y = (Lanes)_mm_rsqrt_ps((__m128)x);
#else
  Lanes y;
  for (int i = 0; i < kLanes; ++i) y[i] = 1.0f / std::sqrt(x[i]);
#endif
  return y + 0.5f * y * (1.0f - x * y * y);
}

// 2^x as 2^n 2^r with |r| <= 1/2, to a few units in the last place. A NaN stays.
INLINE Lanes Exp2(Lanes x) {
#if LANES == 16
  const Lanes r = (Lanes)_mm512_reduce_ps((__m512)x, 0), n = x - r;  // of infinity r is 0
#else
  x = x > 300.0f ? Fill(300.0f) : x;
  x = x < -300.0f ? Fill(-300.0f) : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: added, it leaves an integer in the last digits
  const Lanes shifted = x + kRound, n = shifted - kRound, r = x - n;
#endif
  // The series of exp(r log 2).
  Lanes p = Fill(1.54035304e-4f);
  p = p * r + 1.33335581e-3f;
  p = p * r + 9.61812911e-3f;
  p = p * r + 5.55041087e-2f;
  p = p * r + 2.40226507e-1f;
  p = p * r + 6.93147181e-1f;
  p = p * r + 1.0f;
#if LANES == 16
  return (Lanes)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  // In four factors, as 2^n itself is no float32 where the result is infinite or not normal.
  const Ints whole = (Ints)shifted - (Ints)Fill(kRound), part = whole >> 2, rest = whole - 3 * part;
  const Lanes factor = (Lanes)((part + 127) << 23);
  return p * factor * factor * factor * (Lanes)((rest + 127) << 23);
#endif
}
