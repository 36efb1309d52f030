#include "case.h"

using namespace simt_cases;

namespace {

__global__ void scale_kernel(float* out, const float* in, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = 2 * in[i];
}

CASE(unwritten_output) {
  Buffer<float> out(40), in(40, 1);
  launch(&scale_kernel, 40 / 32, 32, 0, +out, static_cast<const float*>(in), 40);
  out.print();
}

}  // namespace
