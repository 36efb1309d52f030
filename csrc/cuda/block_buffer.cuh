#pragma once

#include "cuda/pooling_plan.h"
#include "cuda/shared_memory.cuh"

namespace selkern::cuda {

struct BlockBuffer;

constexpr int block_buffer_bytes = stage_bytes + vector_bytes;

// Shared memory for whatever the block is at: a kernel that handles several dtypes or layouts has
// one such buffer, not one for each. As large as a stage of elements that starts off a boundary.
template <typename T>
__device__ __forceinline__ T* block_buffer() {
  return reinterpret_cast<T*>(
      static_shared<BlockBuffer, uint4, block_buffer_bytes / vector_bytes>());
}

}  // namespace selkern::cuda
