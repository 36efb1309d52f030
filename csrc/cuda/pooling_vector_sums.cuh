// Sums of several maps that adjoin each other, by way of those of their vectors.
#pragma once

#include "cuda/block_buffer.cuh"
#include "cuda/numeric.cuh"
#include "cuda/vectors.cuh"

namespace selkern::cuda {

// Whoever loads a vector adds it up, and leaves the sum in shared memory. Of a vector that holds
// the end of a map, it leaves the elements: to tell them apart takes long, and these are few. Maps
// are as long as a vector, or longer.
template <typename T>
class VectorSums {
 public:
  using R = Result<T>;
  static constexpr int width = vector_size<T>;
  // As plan_row_groups deals them out, and one more where the first is not whole.
  static constexpr int most_vectors = (width > 2 ? 2 : 1) * stage_bytes / vector_bytes + 1;
  static_assert(most_edges * vector_bytes + most_vectors * sizeof(R) <= block_buffer_bytes);

  // Vector v begins at element v * width - shift.
  __device__ __forceinline__ VectorSums(int positions, unsigned reciprocal, int shift, R scale)
      : positions_(positions),
        reciprocal_(reciprocal),
        shift_(shift),
        scale_(scale),
        ends_(block_buffer<T>()),
        sums_(reinterpret_cast<R*>(ends_ + most_edges * width)) {}

  // Elements that are not there are zero.
  __device__ __forceinline__ void add(int vector, const Pack<T, width>& pack) const {
    const int i = vector * width - shift_;
    const int row = int(__umulhi(unsigned(max(i, 0)), reciprocal_));
    if ((row + 1) * positions_ - i < width) store_shared(ends_ + row * width, pack);
    R sums[width];
#pragma unroll
    for (int k = 0; k < width; ++k) sums[k] = widen(pack.values[k]) * scale_;
    sums_[vector] = sum_of(sums);
  }

  // Of every `lanes`-th vector, and of the ends of the map.
  __device__ __forceinline__ CompensatedSum<R> sum_of_row(int row, int lane, int lanes) const {
    constexpr int batch = 8;
    const unsigned begin = row == 0 ? 0 : shift_ + row * positions_;
    const unsigned end = shift_ + (row + 1) * positions_;
    const int last = int(end / width);
    auto sum = CompensatedSum<R>{};
    for (int v = int((begin + width - 1) / width) + lane; v < last; v += batch * lanes) {
      R sums[batch];
#pragma unroll
      for (int k = 0; k < batch; ++k) {
        sums[k] = v + k * lanes < last ? sums_[v + k * lanes] : R(0);
      }
      sum.add(sum_of(sums));
    }
    for (int edge = lane; edge < 2; edge += lanes) {
      const int first = edge == 0 ? int(begin % width) : 0;
      const int count = edge == 0 ? int(-begin % width) : int(end % width);
      if (count > 0) sum.add(sum_of_end(row - 1 + edge, first, count));
    }
    return sum;
  }

 private:
  template <int count>
  __device__ __forceinline__ static R sum_of(R (&terms)[count]) {
#pragma unroll
    for (int half = count / 2; half > 0; half /= 2) {
#pragma unroll
      for (int i = 0; i < half; ++i) terms[i] += terms[i + half];
    }
    return terms[0];
  }

  // Of `count` elements from `first` of the vector that holds the end of a row.
  __device__ __forceinline__ R sum_of_end(int row, int first, int count) const {
    uint4 bits = *reinterpret_cast<const uint4*>(ends_ + row * width);
    T values[width];
    memcpy(values, &bits, vector_bytes);
    R sum = 0;
#pragma unroll
    for (int k = 0; k < width; ++k) {
      if (unsigned(k - first) < unsigned(count)) sum += widen(values[k]) * scale_;
    }
    return sum;
  }

  const int positions_;
  const unsigned reciprocal_;
  const int shift_;
  const R scale_;
  T* const ends_;  // [most_edges, width]
  R* const sums_;  // of vectors
};

}  // namespace selkern::cuda
