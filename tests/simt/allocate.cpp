// csrc/common/allocate.cpp with tensors that start as NaN, so that one left unwritten shows.
#include "common/allocate.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cstring>

namespace selkern {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

namespace {

Tensor filled(Tensor tensor) {
  int64_t elements = tensor.numel() > 0;
  for (int64_t axis = 0; axis < tensor.dim() && elements > 0; ++axis) {
    elements += (tensor.size(axis) - 1) * tensor.stride(axis);
  }
  if (elements > 0) std::memset(tensor.data_ptr(), 0xff, elements * tensor.element_size());
  return tensor;
}

}  // namespace

Tensor empty(const std::vector<int64_t>& sizes, ScalarType dtype, const Tensor& like) {
  return filled(torch::stable::new_empty(like, sizes, dtype));
}

Tensor empty_strided(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides,
                     const Tensor& like) {
  int32_t dtype, device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(sizes.size(), sizes.data(), strides.data(), dtype,
                                                  device_type, device_index, &handle));
  return filled(Tensor(handle));
}

Tensor on_cpu(const Tensor& tensor) { return tensor; }

}  // namespace selkern
