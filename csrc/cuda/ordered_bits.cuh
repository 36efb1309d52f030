// Integers that are ordered as floating-point numbers are, and that order NaN too.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace selkern::cuda {

// -NaN < -inf < ... < -0 < 0 < ... < inf < NaN
__device__ __forceinline__ uint32_t ordered_bits(float value) {
  const uint32_t bits = __float_as_uint(value);
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

__device__ __forceinline__ uint64_t ordered_bits(double value) {
  const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(value));
  return bits ^ (bits >> 63 ? ~uint64_t(0) : uint64_t(1) << 63);
}

// The number that has these ordered bits.
__device__ __forceinline__ float number_with(uint32_t bits) {
  return __uint_as_float(bits ^ (bits >> 31 ? 0x80000000u : 0xffffffffu));
}

__device__ __forceinline__ double number_with(uint64_t bits) {
  const uint64_t mask = bits >> 63 ? uint64_t(1) << 63 : ~uint64_t(0);
  return __longlong_as_double(static_cast<long long>(bits ^ mask));
}

}  // namespace selkern::cuda
