// Launches of the eigensolver.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/linalg.h"
#include "cuda/block.h"

namespace selkern::cuda {

// Rows of a matrix in shared memory: of an odd length, so that the threads of a warp that each read
// a row all ask other banks.
SELKERN_HOST_DEVICE constexpr int64_t row_stride(int64_t size) { return size | 1; }

// Shared memory that the eigensolver takes for a matrix, with or without eigenvectors, where it
// makes it tridiagonal: it can always do that.
constexpr int64_t eigensolver_bytes(int64_t size, DType dtype) {
  return (size * row_stride(size) + 6 * size + 2 * block_threads) * element_size(dtype);
}

// Of a matrix for which a block of the current device has shared memory.
int64_t largest_eigensolver_size(DType dtype);

// Raises a ValueError where a matrix is larger.
void launch_eigensolver(const EigensolverParams& params, cudaStream_t stream);

}  // namespace selkern::cuda
