#include "case.h"

using namespace simt_cases;

namespace {

__global__ void exited_lane_kernel(int* data) {
  if (threadIdx.x >= 48) return;
  data[threadIdx.x] = __shfl_xor_sync(0xffffffff, data[threadIdx.x], 1);
}

__global__ void waiting_elsewhere_kernel(int* data) {
  if (threadIdx.x < 8) {
    data[threadIdx.x] = __ballot_sync(0xffff, 1);
  } else {
    __syncthreads();
  }
}

__global__ void foreign_mask_kernel(int* data) {
  data[threadIdx.x] = __shfl_sync(0x7fffffff, data[threadIdx.x], 0);
}

void run(void (*kernel)(int*)) {
  Buffer<int> data(64);
  launch(kernel, 1, 64, 0, +data);
}

CASE(exited_lane) { run(exited_lane_kernel); }
CASE(waiting_elsewhere) { run(waiting_elsewhere_kernel); }
CASE(foreign_mask) { run(foreign_mask_kernel); }

}  // namespace
