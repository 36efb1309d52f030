#include "case.h"
#include "cuda/shared_memory.cuh"

using namespace simt_cases;

namespace {

enum class Access { read, write };

template <Access access>
__device__ void touch(float* memory, int offset, float* out) {
  if (threadIdx.x != 0) return;
  if (access == Access::read) {
    out[0] = memory[offset];
  } else {
    memory[offset] = 1;
  }
}

template <Access access>
__global__ void dynamic_kernel(float* out, int offset) {
  float* shared = selkern::cuda::dynamic_shared<float>();
  shared[threadIdx.x] = 0;
  __syncthreads();
  touch<access>(shared, offset, out);
}

template <Access access>
__global__ void static_kernel(float* out, int offset) {
  float* shared = selkern::cuda::static_shared<struct Shared, float, 64>();
  shared[threadIdx.x] = 0;
  __syncthreads();
  touch<access>(shared, offset, out);
}

template <Access access>
__global__ void buffer_kernel(float* out, float* buffer, int offset) {
  touch<access>(buffer, offset, out);
}

__global__ void vector_kernel(float4* out, const float4* buffer, int offset) {
  out[0] = __ldg(buffer + offset);
}

template <Access access>
void run(int offset) {
  Buffer<float> out(1), buffer(64, 0);
  const size_t shared_bytes = 64 * sizeof(float);
  launch(&dynamic_kernel<access>, 1, 64, shared_bytes, +out, offset);
  launch(&static_kernel<access>, 1, 64, 0, +out, offset);
  launch(&buffer_kernel<access>, 1, 64, 0, +out, +buffer, offset);
}

template <Access access>
void run_dynamic() {
  Buffer<float> out(1);
  launch(&dynamic_kernel<access>, 1, 64, 64 * sizeof(float), +out, 64);
}

template <Access access>
void run_static() {
  Buffer<float> out(1);
  launch(&static_kernel<access>, 1, 64, 0, +out, 64);
}

template <Access access>
void run_buffer() {
  Buffer<float> out(1), buffer(64, 0);
  launch(&buffer_kernel<access>, 1, 64, 0, +out, +buffer, 64);
}

CASE(read_past_dynamic_shared) { run_dynamic<Access::read>(); }
CASE(write_past_dynamic_shared) { run_dynamic<Access::write>(); }
CASE(read_past_static_shared) { run_static<Access::read>(); }
CASE(write_past_static_shared) { run_static<Access::write>(); }
CASE(read_past_buffer) { run_buffer<Access::read>(); }
CASE(write_past_buffer) { run_buffer<Access::write>(); }

CASE(vector_past_buffer) {
  Buffer<float> out(4), buffer(63, 0);
  launch(&vector_kernel, 1, 1, 0, reinterpret_cast<float4*>(+out),
         static_cast<const float4*>(static_cast<void*>(buffer)), 15);
}

CASE(no_overrun) {
  run<Access::read>(63);
  run<Access::write>(63);
}

}  // namespace
