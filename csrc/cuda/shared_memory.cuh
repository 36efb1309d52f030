// The one way for kernels to get shared memory.
#pragma once

namespace selkern::cuda {

// The same array of the block wherever Tag, T and count are the same.
template <typename Tag, typename T, int count>
__device__ __forceinline__ T* static_shared() {
  alignas(16) __shared__ T array[count];
  return array;
}

// What the launch asked for.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ uint4 selkern_dynamic_shared[];
  return reinterpret_cast<T*>(selkern_dynamic_shared);
}

}  // namespace selkern::cuda
