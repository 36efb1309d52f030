// csrc/cuda/device.cpp for tensors of the CPU.
#include "cuda/device.h"

namespace selkern::cuda {

DeviceScope::DeviceScope(const torch::stable::Tensor&) {}

}  // namespace selkern::cuda
