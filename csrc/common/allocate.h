#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <vector>

namespace selkern {

// New tensors on the device of `like`; every output and every workspace comes from here.
torch::stable::Tensor empty(const std::vector<int64_t>& sizes, torch::headeronly::ScalarType dtype,
                            const torch::stable::Tensor& like);
torch::stable::Tensor empty_strided(const std::vector<int64_t>& sizes,
                                    const std::vector<int64_t>& strides,
                                    const torch::stable::Tensor& like);

// tensor on the CPU, after a synchronisation where it lies elsewhere.
torch::stable::Tensor on_cpu(const torch::stable::Tensor& tensor);

}  // namespace selkern
