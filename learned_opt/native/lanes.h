// Sixteen float32 numbers at once, on any processor: compilers split them where vectors are shorter.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));

INLINE Lanes Fill(float x) { return x - Lanes{}; }

INLINE Lanes Load(const float* from) {
  Lanes found;
  std::memcpy(&found, from, sizeof(found));
  return found;
}

INLINE void Store(float* to, Lanes x) { std::memcpy(to, &x, sizeof(x)); }

#ifdef __AVX512F__
INLINE __mmask16 Mask(int64_t count) { return static_cast<__mmask16>((1u << count) - 1); }
#endif

// The first `count` numbers, and zeros.
INLINE Lanes Load(const float* from, int64_t count) {
  if (count >= kLanes) return Load(from);
#ifdef __AVX512F__
  return (Lanes)_mm512_maskz_loadu_ps(Mask(count), from);
#else
  Lanes found{};
  std::memcpy(&found, from, 4 * count);
  return found;
#endif
}

INLINE void Store(float* to, Lanes x, int64_t count) {
  if (count >= kLanes) return Store(to, x);
#ifdef __AVX512F__
  _mm512_mask_storeu_ps(to, Mask(count), (__m512)x);
#else
  std::memcpy(to, &x, 4 * count);
#endif
}

// With zeros from the lane `count` on.
INLINE Lanes First(Lanes x, int64_t count) {
  if (count >= kLanes) return x;
#ifdef __AVX512F__
  return (Lanes)_mm512_maskz_mov_ps(Mask(count), (__m512)x);
#else
  Lanes found{};
  std::memcpy(&found, &x, 4 * count);
  return found;
#endif
}

INLINE float Total(Lanes x) {
  x += __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
  x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7);
  x += __builtin_shufflevector(x, x, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3);
  return x[0] + x[1];
}

// A NaN stays.
INLINE Lanes Rectified(Lanes x) {
#ifdef __AVX512F__
  return (Lanes)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x);
#else
  return 0.0f > x ? Lanes{} : x;
#endif
}

// To a few units in the last place, of positive numbers.
INLINE Lanes InverseRoot(Lanes x) {
#ifdef __AVX512F__
  const Lanes y = (Lanes)_mm512_rsqrt14_ps((__m512)x);
  return y + 0.5f * y * (1.0f - x * y * y);  // a step of Newton's method
#else
  for (int i = 0; i < kLanes; ++i) x[i] = 1.0f / std::sqrt(x[i]);
  return x;
#endif
}

// 2^x as 2^n 2^r with |r| <= 1/2, to a few units in the last place. A NaN stays.
INLINE Lanes Exp2(Lanes x) {
#ifdef __AVX512DQ__
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
#ifdef __AVX512DQ__
  return (Lanes)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  // In four factors, as 2^n itself is no float32 where the result is infinite or not normal.
  const Ints whole = (Ints)shifted - (Ints)Fill(kRound), part = whole >> 2, rest = whole - 3 * part;
  const Lanes factor = (Lanes)((part + 127) << 23);
  return p * factor * factor * factor * (Lanes)((rest + 127) << 23);
#endif
}
