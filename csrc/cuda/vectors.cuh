// Groups of adjacent elements that travel in one access of 128 bits.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda/block.h"
#include "cuda/numeric.cuh"

namespace selkern::cuda {

template <typename T>
constexpr int vector_size = vector_bytes / int(sizeof(T));

// `width` elements: a whole vector, or one element where rows are not aligned to vectors.
template <typename T, int width>
struct Pack {
  static_assert(width == 1 || width == vector_size<T>);
  T values[width];
};

// What a load brings. Where several are in flight it must not be taken apart before the last is
// asked for: the compiler would split elements of 16 bits, or join those of 64, between one and the
// next.
template <typename T, int width>
struct LoadedPack {
  using Vector = std::conditional_t<std::is_same_v<T, double>, double2, uint4>;

  std::conditional_t<width == 1, T, Vector> bits;

  __device__ __forceinline__ Pack<T, width> unpack() const {
    Pack<T, width> pack;
    memcpy(pack.values, &bits, sizeof(pack.values));
    return pack;
  }
};

template <int width, typename T>
__device__ __forceinline__ LoadedPack<T, width> load(const T* address) {
  if constexpr (width == 1) {
    return {*address};
  } else {
    return {__ldca(reinterpret_cast<const typename LoadedPack<T, width>::Vector*>(address))};
  }
}

template <int width, typename T>
__device__ __forceinline__ void store(T* address, const Pack<T, width>& pack) {
  if constexpr (width == 1) {
    *address = pack.values[0];
  } else {
    uint4 bits;
    memcpy(&bits, pack.values, vector_bytes);
    __stwb(reinterpret_cast<uint4*>(address), bits);
  }
}

template <int width, typename T>
__device__ __forceinline__ void store_shared(T* address, const Pack<T, width>& pack) {
  if constexpr (width == 1) {
    *address = pack.values[0];
  } else {
    uint4 bits;
    memcpy(&bits, pack.values, vector_bytes);
    *reinterpret_cast<uint4*>(address) = bits;
  }
}

template <int width, typename T>
__device__ __forceinline__ void rectify_pack(Pack<T, width>& pack) {
  if constexpr (width > 1 && sizeof(T) == 2) {
    using Pair = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;
    Pair pairs[width / 2];
    unsigned bits[width / 2];
    memcpy(pairs, pack.values, vector_bytes);
    memcpy(bits, pack.values, vector_bytes);
#pragma unroll
    for (int i = 0; i < width / 2; ++i) bits[i] &= __hgtu2_mask(pairs[i], Pair{});
    memcpy(pack.values, bits, vector_bytes);
  } else {
#pragma unroll
    for (int i = 0; i < width; ++i) pack.values[i] = rectify(pack.values[i]);
  }
}

// Elements from address up to the next 16-byte boundary.
template <typename T>
__device__ __forceinline__ int elements_to_boundary(const T* address) {
  const auto misaligned = reinterpret_cast<uintptr_t>(address) % vector_bytes;
  return int((vector_bytes - misaligned) % vector_bytes / sizeof(T));
}

}  // namespace selkern::cuda
