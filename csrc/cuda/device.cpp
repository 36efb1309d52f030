#include "cuda/device.h"

#include <torch/csrc/stable/library.h>

namespace selkern::cuda {

DeviceScope::DeviceScope(const torch::stable::Tensor& tensor) {
  int32_t index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(tensor.get(), &index));
  guard_.emplace(index);
  void* stream;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index, &stream));
  stream_ = static_cast<cudaStream_t>(stream);
}

}  // namespace selkern::cuda
