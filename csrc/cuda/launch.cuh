#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "common/value_error.h"

namespace selkern::cuda {

inline void check_launch(cudaError_t code) {
  if (code == cudaSuccess) return;
  const std::string problem = cudaGetErrorString(code);
  cudaGetLastError();  // forgets it, or the next one to look would take it for its own
  throw std::runtime_error("selkern could not launch a kernel: " + problem +
                           " (selkern.build_info() tells what GPUs it was built for)");
}

// Shared memory that a block of the current device can have, if it asks.
inline int64_t most_shared_bytes() {
  int device = 0, bytes = 0;
  check_launch(cudaGetDevice(&device));
  check_launch(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return bytes;
}

// Every kernel takes one plain struct of parameters and one-dimensional blocks. One that is
// launched with dynamic shared memory has no other.
template <typename Params>
void launch(void (*kernel)(Params), int64_t blocks, int threads, cudaStream_t stream,
            const Params& params, int64_t shared_bytes = 0) {
  static_assert(sizeof(Params) <= 32764, "more parameters than a launch takes");
  constexpr int64_t most_blocks = 0x7fffffff;
  if (blocks > most_blocks) {
    raise_value_error("a tensor that needs " + std::to_string(blocks) +
                      " blocks of threads is too large: CUDA takes " + std::to_string(most_blocks));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  constexpr int64_t shared_bytes_by_default = 48 << 10;
  if (shared_bytes > shared_bytes_by_default) {
    // The most there is, whatever this launch needs: another thread may launch the same kernel.
    check_launch(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(most_shared_bytes())));
  }
  check_launch(cudaLaunchKernelEx(&config, kernel, params));
}

}  // namespace selkern::cuda
