// The columns of a matrix by their variance, by one block of threads.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "cuda/ordered_bits.cuh"

namespace selkern::cuda {

template <typename T>
using OrderedBits = std::conditional_t<std::is_same_v<T, double>, uint64_t, uint32_t>;

// Sorts the largest variance first, and of equal ones the lowest column; behind them what is none.
template <typename T>
struct alignas(2 * sizeof(T)) SortEntry {
  OrderedBits<T> key;
  OrderedBits<T> column;

  __device__ __forceinline__ static SortEntry of(T variance, int64_t column) {
    return {OrderedBits<T>(~ordered_bits(variance)), OrderedBits<T>(column)};
  }
  __device__ __forceinline__ static SortEntry none() {
    return {~OrderedBits<T>(0), ~OrderedBits<T>(0)};
  }
  __device__ __forceinline__ T variance() const { return number_with(OrderedBits<T>(~key)); }
  __device__ __forceinline__ bool precedes(const SortEntry& other) const {
    return key < other.key || (key == other.key && column < other.column);
  }
};

// A bitonic sort of a power of two of entries. They are there for all threads afterwards.
template <typename T, int threads>
__device__ __forceinline__ void sort_entries(SortEntry<T>* entries, unsigned size) {
  for (unsigned run = 2; run <= size; run *= 2) {
    for (unsigned distance = run / 2; distance > 0; distance /= 2) {
      __syncthreads();
      for (unsigned pair = threadIdx.x; pair < size / 2; pair += threads) {
        const unsigned i = 2 * pair - (pair & (distance - 1));
        const SortEntry<T> first = entries[i], second = entries[i + distance];
        const bool is_ascending = (i & run) == 0;
        if (second.precedes(first) == is_ascending) {
          entries[i] = second;
          entries[i + distance] = first;
        }
      }
    }
  }
  __syncthreads();
}

}  // namespace selkern::cuda
