// CUDA's arithmetic on single numbers. The build forbids the compiler to contract a * b + c.
#pragma once

#include <math.h>

#include <cstdint>
#include <cstring>

#define SIMT_MIN_MAX(T, smaller, larger)     \
  inline T min(T a, T b) { return smaller; } \
  inline T max(T a, T b) { return larger; }

SIMT_MIN_MAX(int, b < a ? b : a, a < b ? b : a)
SIMT_MIN_MAX(unsigned, b < a ? b : a, a < b ? b : a)
SIMT_MIN_MAX(long, b < a ? b : a, a < b ? b : a)
SIMT_MIN_MAX(unsigned long, b < a ? b : a, a < b ? b : a)
SIMT_MIN_MAX(long long, b < a ? b : a, a < b ? b : a)
SIMT_MIN_MAX(unsigned long long, b < a ? b : a, a < b ? b : a)
SIMT_MIN_MAX(float, fminf(a, b), fmaxf(a, b))
SIMT_MIN_MAX(double, fmin(a, b), fmax(a, b))

#undef SIMT_MIN_MAX

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(x); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(x); }

inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1u) << (31 - bit);
  return reversed;
}

inline unsigned __umulhi(unsigned a, unsigned b) { return uint64_t(a) * b >> 32; }
inline int __mulhi(int a, int b) { return int64_t(a) * b >> 32; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned __int128>(a) * b >> 64;
}

namespace simt {

template <typename To, typename From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace simt

inline float __int_as_float(int x) { return simt::bit_cast<float>(x); }
inline int __float_as_int(float x) { return simt::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return simt::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return simt::bit_cast<unsigned>(x); }
inline double __longlong_as_double(long long x) { return simt::bit_cast<double>(x); }
inline long long __double_as_longlong(double x) { return simt::bit_cast<long long>(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fdividef(float a, float b) { return a / b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline double __dsqrt_rn(double x) { return sqrt(x); }
inline float rsqrtf(float x) { return static_cast<float>(1 / sqrt(static_cast<double>(x))); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
