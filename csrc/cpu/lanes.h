// Registers full of T, one matrix a lane, and arrays of them.
#pragma once

#include "cpu/vectors.h"

namespace selkern::cpu::SELKERN_ISA {

template <typename T>
using Lanes = FullVector<T>;
template <typename T>
using Mask = decltype(Lanes<T>{} < Lanes<T>{});  // integers as wide as T, -1 where true

template <typename T>
inline Lanes<T> fill(T value) {
  return value - Lanes<T>{};  // The sum would not be -0 where value is.
}

template <typename T>
inline Lanes<T> multiply_add(Lanes<T> a, Lanes<T> b, Lanes<T> c) {
#if SELKERN_VECTOR_BYTES == 64
  if constexpr (std::is_same_v<T, float>) return (Lanes<T>)_mm512_fmadd_ps(a, b, c);
  if constexpr (std::is_same_v<T, double>) return (Lanes<T>)_mm512_fmadd_pd(a, b, c);
#elif SELKERN_VECTOR_BYTES == 32
  if constexpr (std::is_same_v<T, float>) return (Lanes<T>)_mm256_fmadd_ps(a, b, c);
  if constexpr (std::is_same_v<T, double>) return (Lanes<T>)_mm256_fmadd_pd(a, b, c);
#endif
  return a * b + c;
}

template <typename T>
struct LaneMath {
  static inline Lanes<T> square_root(Lanes<T> values) {
#if SELKERN_VECTOR_BYTES == 64
    // The unmasked forms warn.
    if constexpr (std::is_same_v<T, float>) return _mm512_maskz_sqrt_ps(0xffff, values);
    if constexpr (std::is_same_v<T, double>) return _mm512_maskz_sqrt_pd(0xff, values);
#elif SELKERN_VECTOR_BYTES == 32
    if constexpr (std::is_same_v<T, float>) return _mm256_sqrt_ps(values);
    if constexpr (std::is_same_v<T, double>) return _mm256_sqrt_pd(values);
#elif defined(__SSE2__)
    if constexpr (std::is_same_v<T, float>) return _mm_sqrt_ps(values);
    if constexpr (std::is_same_v<T, double>) return _mm_sqrt_pd(values);
#endif
    for (int64_t lane = 0; lane < full_lanes<T>; ++lane) values[lane] = std::sqrt(values[lane]);
    return values;
  }
  static inline Lanes<T> inverse_square_root(Lanes<T> values) {
#if SELKERN_VECTOR_BYTES == 64
    if constexpr (std::is_same_v<T, float>) {
      // 14 bits, and Newton's step for the others.
      const Lanes<T> guess = _mm512_maskz_rsqrt14_ps(0xffff, values);
      const Lanes<T> excess = multiply_add<T>(values * guess, guess, fill<T>(-1));
      return multiply_add<T>(guess * T(-0.5), excess, guess);
    }
#endif
    return 1 / square_root(values);
  }
};

template <typename V>
inline V absolute(V values) {
  return values < 0 ? -values : values;
}

template <typename M>
inline bool any(M mask) {
#if SELKERN_VECTOR_BYTES == 64
  if constexpr (sizeof(mask[0]) == 4) return _mm512_movepi32_mask((__m512i)mask) != 0;
  return _mm512_movepi64_mask((__m512i)mask) != 0;
#elif SELKERN_VECTOR_BYTES == 32
  return _mm256_movemask_epi8((__m256i)mask) != 0;
#else
  bool found = false;
  for (size_t lane = 0; lane < sizeof(mask) / sizeof(mask[0]); ++lane) found |= mask[lane] != 0;
  return found;
#endif
}

// Entry i of every matrix of a group, at data + i * full_lanes<T>.
template <typename T>
struct LaneArray {
  T* data;

  inline Lanes<T> operator[](int64_t i) const {
    return load<T, Lanes<T>>(data + i * full_lanes<T>);
  }
  inline void set(int64_t i, Lanes<T> values) const { store(data + i * full_lanes<T>, values); }
  inline T& at(int64_t i, int64_t lane) const { return data[i * full_lanes<T> + lane]; }
  inline LaneArray operator+(int64_t i) const { return {data + i * full_lanes<T>}; }
};

// Terms that are added up one after another at most; longer sums are sums of such sums.
constexpr int64_t run_terms = 32;

// Calls add(begin, end) for runs of the terms from 0 to count.
template <typename Add>
inline void for_runs(int64_t count, const Add& add) {
  for (int64_t begin = 0; begin < count; begin += run_terms) {
    add(begin, std::min(begin + run_terms, count));
  }
}

template <typename T>
inline Lanes<T> dot_product(LaneArray<T> a, LaneArray<T> b, int64_t count) {
  Lanes<T> total{};
  for_runs(count, [&](int64_t begin, int64_t end) {
    Lanes<T> sum{};
    for (int64_t k = begin; k < end; ++k) sum = multiply_add<T>(a[k], b[k], sum);
    total += sum;
  });
  return total;
}

}  // namespace selkern::cpu::SELKERN_ISA
