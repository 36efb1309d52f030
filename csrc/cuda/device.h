#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

namespace selkern::cuda {

// Makes the tensor's device the current one, and knows the current stream there.
class DeviceScope {
 public:
  explicit DeviceScope(const torch::stable::Tensor& tensor);
  cudaStream_t stream() const { return stream_; }

 private:
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace selkern::cuda
