#include "case.h"

using namespace simt_cases;

namespace {

// Adds in the order in which the blocks come.
__global__ void sum_kernel(float* sum) { *sum += 1.0f / (1 + blockIdx.x); }

CASE(block_order) {
  Buffer<float> sum(1, 0);
  launch(&sum_kernel, 1000, 1, 0, +sum);
  say().precision(9);
  sum.print();
}

}  // namespace
