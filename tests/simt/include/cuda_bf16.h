#pragma once

#include "cuda_runtime.h"
#include "simt/narrow_floats.h"

struct __nv_bfloat16 : simt::NarrowFloat<8> {};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

namespace simt {

template <>
inline constexpr bool is_shuffled<__nv_bfloat16> = true;
template <>
inline constexpr bool is_shuffled<__nv_bfloat162> = true;

}  // namespace simt

inline float __bfloat162float(__nv_bfloat16 x) { return __nv_bfloat16::widen(x.bits); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {{__nv_bfloat16::round(x)}}; }
inline __nv_bfloat16 __float2bfloat16(float x) { return __float2bfloat16_rn(x); }
inline __nv_bfloat16 __double2bfloat16(double x) { return {{__nv_bfloat16::round(x)}}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {{bits}}; }
inline float2 __bfloat1622float2(__nv_bfloat162 v) {
  return {__bfloat162float(v.x), __bfloat162float(v.y)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16(x), __float2bfloat16(y)};
}
inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __floats2bfloat162_rn(v.x, v.y); }
// All bits of each half that is greater, or where either is NaN.
inline unsigned __hgtu2_mask(__nv_bfloat162 a, __nv_bfloat162 b) {
  const auto greater = [](__nv_bfloat16 a, __nv_bfloat16 b) {
    return !(__bfloat162float(a) <= __bfloat162float(b));
  };
  return (greater(a.x, b.x) ? 0xffffu : 0) | (greater(a.y, b.y) ? 0xffff0000u : 0);
}
