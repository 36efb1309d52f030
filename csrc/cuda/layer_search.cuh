#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace selkern::cuda {

// The last of `count` ascending starts that is not after `position`; the first is not.
template <typename StartOf>
__device__ __forceinline__ int last_not_after(int count, StartOf start_of, int64_t position) {
  int first = 0;
  for (int rest = count; rest > 1;) {
    const int half = rest / 2;
    if (start_of(first + half) <= position) first += half;
    rest -= half;
  }
  return first;
}

}  // namespace selkern::cuda
