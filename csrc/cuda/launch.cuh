#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace selkern::cuda {

inline void check_launch(cudaError_t code) {
  if (code == cudaSuccess) return;
  const std::string problem = cudaGetErrorString(code);
  cudaGetLastError();  // forgets it, or the next one to look would take it for its own
  throw std::runtime_error("selkern could not launch a kernel: " + problem +
                           " (selkern.build_info() tells what GPUs it was built for)");
}

// Every kernel takes one plain struct of parameters and one-dimensional blocks.
template <typename Params>
void launch(void (*kernel)(Params), int64_t blocks, int threads, cudaStream_t stream,
            const Params& params) {
  static_assert(sizeof(Params) <= 32764, "more parameters than a launch takes");
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
  check_launch(cudaLaunchKernelEx(&config, kernel, params));
}

}  // namespace selkern::cuda
