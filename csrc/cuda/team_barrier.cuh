// A barrier for the threads that work on one problem together.
#pragma once

#include <cuda_runtime.h>

#include "cuda/block.h"

namespace selkern::cuda {

// The threads are a warp, or all of a block.
template <int threads>
__device__ __forceinline__ void team_barrier() {
  if constexpr (threads == warp_threads) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

}  // namespace selkern::cuda
