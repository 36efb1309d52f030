#include "case.h"

using namespace simt_cases;

namespace {

__global__ void skipped_barrier_kernel(int* data) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  }
  data[threadIdx.x] = 1;
  __syncthreads();
}

__global__ void early_exit_kernel(int* data) {
  if (threadIdx.x == 5) return;
  data[threadIdx.x] = 1;
  __syncthreads();
}

__global__ void divergent_barriers_kernel(int* data) {
  if (threadIdx.x < 40) {
    data[threadIdx.x] = 1;
    __syncthreads();
  } else {
    data[threadIdx.x] = 2;
    __syncthreads();
  }
}

void run(void (*kernel)(int*)) {
  Buffer<int> data(64);
  launch(kernel, 1, 64, 0, +data);
}

CASE(skipped_barrier) { run(skipped_barrier_kernel); }
CASE(early_exit) { run(early_exit_kernel); }
CASE(divergent_barriers) { run(divergent_barriers_kernel); }

}  // namespace
