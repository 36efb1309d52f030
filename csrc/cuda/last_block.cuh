// Work that is left to whichever block of several ends last.
#pragma once

#include <cuda_runtime.h>

namespace selkern::cuda {

// Whether this block is the last of `blocks` to get here; it then sees what the others wrote.
// is_last: shared memory of its own.
__device__ __forceinline__ bool is_last_block(unsigned* blocks_done, unsigned blocks,
                                              bool* is_last) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    *is_last = atomicAdd(blocks_done, 1u) == blocks - 1;
    __threadfence();
    // Ready for another launch.
    if (*is_last) atomicExch(blocks_done, 0u);
  }
  __syncthreads();
  return *is_last;
}

}  // namespace selkern::cuda
