#include "common/allocate.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

namespace selkern {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Tensor empty(const std::vector<int64_t>& sizes, ScalarType dtype, const Tensor& like) {
  return torch::stable::new_empty(like, sizes, dtype);
}

namespace {

Tensor empty_strided_on(int32_t device_type, int32_t device_index,
                        const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides,
                        const Tensor& like) {
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(sizes.size(), sizes.data(), strides.data(), dtype,
                                                  device_type, device_index, &handle));
  return Tensor(handle);
}

}  // namespace

Tensor empty_strided(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides,
                     const Tensor& like) {
  int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  return empty_strided_on(device_type, device_index, sizes, strides, like);
}

Tensor on_cpu(const Tensor& tensor) {
  const std::vector<int64_t> sizes(tensor.sizes().begin(), tensor.sizes().end());
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t axis = sizes.size(); axis-- > 0; stride *= sizes[axis]) strides[axis] = stride;
  Tensor copy = empty_strided_on(aoti_torch_device_type_cpu(), 0, sizes, strides, tensor);
  torch::stable::copy_(copy, tensor);
  return copy;
}

}  // namespace selkern
