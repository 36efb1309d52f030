#include "case.h"
#include "cuda/shared_memory.cuh"

using namespace simt_cases;

namespace {

struct Position {
  uint3 thread, block, threads, blocks;
};

// Every thread writes where it is to where it should be.
__global__ void positions_kernel(Position* positions) {
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  positions[block * threads + thread] = {threadIdx, blockIdx, blockDim, gridDim};
}

__global__ void order_kernel(int* order, unsigned* count) {
  order[atomicAdd(count, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
}

__global__ void shared_kernel(unsigned* out, int dynamic_count) {
  struct First;
  struct Second;
  unsigned* first = selkern::cuda::static_shared<First, unsigned, 4>();
  unsigned* second = selkern::cuda::static_shared<Second, unsigned, 4>();
  unsigned* dynamic = selkern::cuda::dynamic_shared<unsigned>();
  const bool fresh = first[threadIdx.x] == ~0u && second[threadIdx.x] == ~0u &&
                     dynamic[dynamic_count - 1 - threadIdx.x] == ~0u;
  __syncthreads();
  first[threadIdx.x] = 10 + threadIdx.x;
  second[threadIdx.x] = 20 + threadIdx.x;
  __syncthreads();
  const unsigned* again = selkern::cuda::static_shared<First, unsigned, 4>();
  out[blockIdx.x * 4 + threadIdx.x] = fresh ? again[3 - threadIdx.x] + second[threadIdx.x] : 0;
}

__global__ void nothing_kernel() {}

__global__ void big_static_kernel() {
  struct Big;
  selkern::cuda::static_shared<Big, char, (48 << 10) + 1>()[threadIdx.x] = 0;
}

CASE(big_static_shared) { launch(&big_static_kernel, 1, 1, 0); }

__global__ void trap_kernel() {
  if (threadIdx.x == 3) __trap();
}

CASE(trap) {
  launch(&trap_kernel, 1, 32, 0);
  say() << "last error " << cudaPeekAtLastError() << " " << cudaGetLastError() << " "
        << cudaGetLastError() << "\n";
  launch(&nothing_kernel, 1, 32, 0);
}

CASE(shared_memory) {
  Buffer<unsigned> out(8);
  launch(&shared_kernel, 2, 4, 100 * sizeof(unsigned), +out, 100);
  out.print();
}

}  // namespace

EXPORTED void run_positions(void* positions, const unsigned* g, const unsigned* b) {
  launch(&positions_kernel, dim3(g[0], g[1], g[2]), dim3(b[0], b[1], b[2]), 0,
         static_cast<Position*>(positions));
}

EXPORTED void run_order(int* order, unsigned blocks, unsigned threads) {
  unsigned count = 0;
  launch(&order_kernel, blocks, threads, 0, order, &count);
}

// What the launch of such a grid says.
EXPORTED const char* run_nothing(const unsigned* g, const unsigned* b, size_t shared_bytes,
                                 int allowed_bytes) {
  const cudaError_t allowed = cudaFuncSetAttribute(
      &nothing_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, allowed_bytes);
  if (allowed != cudaSuccess) return cudaGetErrorString(allowed);
  return cudaGetErrorString(
      launch(&nothing_kernel, dim3(g[0], g[1], g[2]), dim3(b[0], b[1], b[2]), shared_bytes));
}
