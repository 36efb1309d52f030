// Element types, the type their sums are taken in, and sums that do not lose digits.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <stdexcept>
#include <type_traits>

#include "common/dtype.h"
#include "common/exact_sum.h"
#include "cuda/block.h"

namespace selkern::cuda {

template <typename T>
using Result = std::conditional_t<std::is_same_v<T, double>, double, float>;

__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }

template <typename T>
__device__ __forceinline__ T narrow(Result<T> value) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(value);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(value);
  } else {
    return value;
  }
}

// relu of NaN is NaN.
template <typename T>
__device__ __forceinline__ T rectify(T value) {
  return widen(value) <= 0 ? narrow<T>(0) : value;
}

// A running sum and what rounding has taken from it. Starts as CompensatedSum<R>{}.
template <typename R>
struct CompensatedSum {
  R high;
  R low;

  __device__ __forceinline__ void add(R value) {
    const R sum = high + value;
    low += rest_of_sum(high, value, sum);
    high = sum;
  }

  __device__ __forceinline__ void add(const CompensatedSum& other) {
    add(other.high);
    low += other.low;
  }

  // What rounding took from an infinite sum is not a number.
  __device__ __forceinline__ R value() const {
    const R sum = high + low;
    return sum == sum ? sum : high;
  }
};

// Adds the sums of `lanes` neighbouring lanes, a power of two, into the first of them. All lanes of
// the warp must call it.
template <typename R>
__device__ __forceinline__ void add_lanes(CompensatedSum<R>& sum, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    CompensatedSum<R> other;
    other.high = __shfl_down_sync(all_lanes, sum.high, offset);
    other.low = __shfl_down_sync(all_lanes, sum.low, offset);
    sum.add(other);
  }
}

template <typename T>
struct TypeTag {
  using type = T;
};

// Calls function(TypeTag<T>{}) for the element type that dtype stands for.
template <typename Function>
void for_dtype(DType dtype, Function function) {
  switch (dtype) {
    case DType::float16:
      return function(TypeTag<__half>{});
    case DType::bfloat16:
      return function(TypeTag<__nv_bfloat16>{});
    case DType::float32:
      return function(TypeTag<float>{});
    case DType::float64:
      return function(TypeTag<double>{});
  }
  throw std::logic_error("a dtype without kernels");
}

}  // namespace selkern::cuda
