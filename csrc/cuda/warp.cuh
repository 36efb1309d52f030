// What the lanes of a warp compute together; all of them get the same bits.
#pragma once

#include <cuda_runtime.h>

#include "cuda/block.h"

namespace selkern::cuda {

template <typename T, typename Combine>
__device__ __forceinline__ T combine_lanes(T value, Combine combine) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(all_lanes, value, offset));
  }
  return value;
}

template <typename T>
__device__ __forceinline__ T lane_sum(T value) {
  return combine_lanes(value, [](T a, T b) { return a + b; });
}

template <typename T>
__device__ __forceinline__ T lane_max(T value) {
  return combine_lanes(value, [](T a, T b) { return max(a, b); });
}

template <typename T>
__device__ __forceinline__ T lane_min(T value) {
  return combine_lanes(value, [](T a, T b) { return min(a, b); });
}

}  // namespace selkern::cuda
