// Arithmetic of the eigensolvers.
#pragma once

#include <cuda_runtime.h>

#include <cfloat>
#include <cmath>

namespace selkern::cuda {

struct DeviceMath {
  __device__ __forceinline__ static float square_root(float x) { return sqrtf(x); }
  __device__ __forceinline__ static double square_root(double x) { return sqrt(x); }

  __device__ __forceinline__ static float multiply_add(float a, float b, float c) {
    return fmaf(a, b, c);
  }
  __device__ __forceinline__ static double multiply_add(double a, double b, double c) {
    return fma(a, b, c);
  }

  // The instruction's result, of a normal number: rsqrtf makes a detour around the others, of which
  // this one makes zeros.
  __device__ __forceinline__ static float rough_inverse_square_root(float x) {
#if defined(__CUDA_ARCH__)
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return fabsf(x) < FLT_MIN ? INFINITY : rsqrtf(x);
#endif
  }
  __device__ __forceinline__ static double rough_inverse_square_root(double x) { return rsqrt(x); }

  __device__ __forceinline__ static float rough_reciprocal(float x) {
#if defined(__CUDA_ARCH__)
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return fabsf(x) < FLT_MIN ? INFINITY : 1 / x;
#endif
  }
  __device__ __forceinline__ static double rough_reciprocal(double x) { return 1 / x; }

  // Once refined.
  __device__ __forceinline__ static float inverse_square_root(float x) {
    const float y = rough_inverse_square_root(x);
    return fmaf(0.5f * y, fmaf(-x * y, y, 1.0f), y);
  }
  __device__ __forceinline__ static double inverse_square_root(double x) { return rsqrt(x); }
};

// By how many powers of two entries are divided, so that they are below 1, and neither their
// squares' sums overflow nor they underflow. largest: of their magnitudes, finite.
__device__ __forceinline__ int scale_exponent(float largest) {
  return min(max(int(__float_as_uint(largest) >> 23) - 126, -125), 126);
}
__device__ __forceinline__ int scale_exponent(double largest) {
  return min(max(int(__double_as_longlong(largest) >> 52) - 1022, -1021), 1022);
}

// Of a normal number.
template <typename T>
__device__ __forceinline__ T power_of_two(int exponent) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return __longlong_as_double((exponent + 1023ll) << 52);
  } else {
    return __uint_as_float(unsigned(exponent + 127) << 23);
  }
}

}  // namespace selkern::cuda
