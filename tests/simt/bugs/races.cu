#include "case.h"
#include "cuda/shared_memory.cuh"

using namespace simt_cases;

namespace {

// The last block to arrive adds what all have written.
template <bool barrier, bool fence_before, bool fence_after>
__global__ void last_block_kernel(int* parts, unsigned* arrived, int* total) {
  int* is_last = selkern::cuda::static_shared<struct IsLast, int, 1>();
  const int threads = blockDim.x, blocks = gridDim.x;
  parts[blockIdx.x * threads + threadIdx.x] = threadIdx.x;
  if (barrier) {
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    if (fence_before) __threadfence();
    *is_last = atomicInc(arrived, blocks - 1) == unsigned(blocks) - 1;
    if (fence_after) __threadfence();
  }
  __syncthreads();
  if (!*is_last || threadIdx.x != 0) return;
  int sum = 0;
  for (int i = 0; i < blocks * threads; ++i) {
    sum += parts[i];
  }
  *total = sum;
}

template <bool barrier, bool fence_before, bool fence_after>
void last_block() {
  Buffer<int> parts(4 * 8), total(1);
  Buffer<unsigned> arrived(1, 0);
  launch(&last_block_kernel<barrier, fence_before, fence_after>, 4, 8, 0, +parts, +arrived, +total);
  total.print();
  arrived.print();
}

CASE(no_fence_before_atomic) { last_block<true, false, true>(); }
CASE(no_fence_after_atomic) { last_block<true, true, false>(); }
CASE(no_barrier_before_atomic) { last_block<false, true, true>(); }
CASE(last_block) { last_block<true, true, true>(); }

__global__ void race_between_blocks_kernel(int* data) {
  if (threadIdx.x == 0) data[0] = blockIdx.x;
}

CASE(race_between_blocks) {
  Buffer<int> data(1);
  launch(&race_between_blocks_kernel, 2, 32, 0, +data);
}

template <bool has_bug>
__global__ void warp_kernel(int* out) {
  int* shared = selkern::cuda::static_shared<struct Shared, int, 32>();
  shared[threadIdx.x] = threadIdx.x;
  if (has_bug) {
    __shfl_sync(0xffffffff, 0, 0);
  } else {
    __syncwarp();
  }
  out[threadIdx.x] = shared[31 - threadIdx.x];
}

template <bool has_bug>
void warp() {
  Buffer<int> out(32);
  launch(&warp_kernel<has_bug>, 1, 32, 0, +out);
}

CASE(shuffle_for_barrier) { warp<true>(); }
CASE(warp_barrier) { warp<false>(); }

// Blocks and launches use the same memory one after another, and counters are atomic.
__global__ void histogram_kernel(unsigned* counts, int* data) {
  unsigned* shared = selkern::cuda::dynamic_shared<unsigned>();
  if (threadIdx.x < 4) shared[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&shared[threadIdx.x % 4], 1);
  __syncthreads();
  if (threadIdx.x < 4) atomicAdd(&counts[threadIdx.x], shared[threadIdx.x]);
  data[blockIdx.x * blockDim.x + threadIdx.x] += 1;
}

CASE(no_race) {
  Buffer<unsigned> counts(4, 0);
  Buffer<int> data(3 * 40, 0);
  for (int i = 0; i < 3; ++i) {
    launch(&histogram_kernel, 3, 40, 4 * sizeof(unsigned), +counts, +data);
    for (int j = 0; j < 3 * 40; ++j) ++data[j];
  }
  counts.print();
}

}  // namespace
