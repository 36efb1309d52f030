#include "case.h"
#include "cuda/shared_memory.cuh"

using namespace simt_cases;

namespace {

template <bool has_bug>
__global__ void reverse_kernel(float* data) {
  float* stage = selkern::cuda::static_shared<struct Stage, float, 64>();
  stage[threadIdx.x] = data[threadIdx.x];
  if (!has_bug) {
    __syncthreads();
  }
  data[threadIdx.x] = stage[blockDim.x - 1 - threadIdx.x];
}

// Each round's reads must end before the next round writes.
template <bool has_bug>
__global__ void rotate_kernel(int* data, int rounds) {
  int* stage = selkern::cuda::static_shared<struct Stage, int, 64>();
  int value = data[threadIdx.x];
  for (int round = 0; round < rounds; ++round) {
    stage[threadIdx.x] = value;
    __syncthreads();
    value = stage[(threadIdx.x + 1) % blockDim.x];
    if (!has_bug) {
      __syncthreads();
    }
  }
  data[threadIdx.x] = value;
}

template <bool has_bug>
void reverse() {
  Buffer<float> data(64);
  for (int i = 0; i < 64; ++i) data[i] = i;
  launch(&reverse_kernel<has_bug>, 1, 64, 0, +data);
  data.print();
}

template <bool has_bug>
void rotate() {
  Buffer<int> data(64);
  for (int i = 0; i < 64; ++i) data[i] = i;
  launch(&rotate_kernel<has_bug>, 1, 64, 0, +data, 3);
  data.print();
}

CASE(missing_barrier) { reverse<true>(); }
CASE(no_missing_barrier) { reverse<false>(); }
CASE(missing_barrier_after_reads) { rotate<true>(); }
CASE(no_missing_barrier_after_reads) { rotate<false>(); }

}  // namespace
