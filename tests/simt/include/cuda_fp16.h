#pragma once

#include "cuda_runtime.h"
#include "simt/narrow_floats.h"

struct __half : simt::NarrowFloat<5> {};
struct alignas(4) __half2 {
  __half x, y;
};
using half = __half;
using half2 = __half2;

namespace simt {

template <>
inline constexpr bool is_shuffled<__half> = true;
template <>
inline constexpr bool is_shuffled<__half2> = true;

}  // namespace simt

inline float __half2float(__half x) { return __half::widen(x.bits); }
inline __half __float2half_rn(float x) { return {{__half::round(x)}}; }
inline __half __float2half(float x) { return __float2half_rn(x); }
inline __half __double2half(double x) { return {{__half::round(x)}}; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(unsigned short bits) { return {{bits}}; }
inline float2 __half22float2(__half2 v) { return {__half2float(v.x), __half2float(v.y)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half(x), __float2half(y)}; }
inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
// All bits of each half that is greater, or where either is NaN.
inline unsigned __hgtu2_mask(__half2 a, __half2 b) {
  const auto greater = [](__half a, __half b) { return !(__half2float(a) <= __half2float(b)); };
  return (greater(a.x, b.x) ? 0xffffu : 0) | (greater(a.y, b.y) ? 0xffff0000u : 0);
}
