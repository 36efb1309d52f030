#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace selkern::cuda {

inline void check_cuda(cudaError_t code) {
  if (code != cudaSuccess) throw std::runtime_error(cudaGetErrorString(code));
}

// Every kernel takes one plain struct of parameters and one-dimensional blocks.
template <typename Params>
void launch(void (*kernel)(Params), int64_t blocks, int threads, cudaStream_t stream,
            const Params& params) {
  constexpr int64_t most_blocks = 0x7fffffff;
  if (blocks > most_blocks) {
    throw std::invalid_argument("a tensor that needs " + std::to_string(blocks) +
                                " blocks of threads is too large: CUDA takes " +
                                std::to_string(most_blocks));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  check_cuda(cudaLaunchKernelEx(&config, kernel, params));
}

}  // namespace selkern::cuda
