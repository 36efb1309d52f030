// Columns of a matrix in registers, and the rotations that make every two of them orthogonal.
#pragma once

#include "common/linalg_tridiagonal.h"
#include "cuda/block.h"
#include "cuda/linalg_math.cuh"
#include "cuda/team_barrier.cuh"

namespace selkern::cuda {

// Some lanes side by side, a group, hold as many first columns as second ones; each lane has the
// same rows of all of them.
template <int columns_, int lanes_, int width_>
struct JacobiShape {
  static constexpr int columns = columns_;
  static constexpr int lanes = lanes_;
  static constexpr int width = width_;  // first columns of a group
  static constexpr int groups = columns / (2 * width);
  static constexpr int threads = groups * lanes;
  static constexpr int rows = columns / lanes;  // of a lane
  static constexpr int pack = 4;                // rows that a lane has side by side
  static constexpr int packs = rows / pack;
  static constexpr int stride = columns + pack;  // of the matrix's rows in shared memory

  // In shared memory: the matrix, what is exchanged, and three numbers a column.
  static constexpr int matrix_elements = columns * stride;
  static constexpr int exchanged_elements = columns * columns;
  static constexpr int elements = matrix_elements + exchanged_elements + 3 * columns;

  __device__ __forceinline__ static int group() { return int(threadIdx.x) / lanes; }
  __device__ __forceinline__ static int lane() { return int(threadIdx.x) % lanes; }
  __device__ __forceinline__ static int row(int index, int lane) {
    return (index / pack * lanes + lane) * pack + index % pack;
  }
};

template <typename T, int rows>
struct JacobiColumn {
  T entries[rows];  // to be multiplied with
  T scale;
  T square;  // of the length
};

// Of all lanes of a group; all of them get the same bits.
template <typename Shape, int count, typename T>
__device__ __forceinline__ void sum_over_group(T (&shares)[count]) {
#pragma unroll
  for (int offset = Shape::lanes / 2; offset > 0; offset /= 2) {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      shares[i] += __shfl_xor_sync(all_lanes, shares[i], offset);
    }
  }
}

template <typename T, int rows>
__device__ __forceinline__ T share_of_product(const T (&a)[rows], const T (&b)[rows]) {
  constexpr int chains = 4;
  T sums[chains];
#pragma unroll
  for (int j = 0; j < rows; ++j) {
    T& sum = sums[j % chains];
    sum = j < chains ? a[j] * b[j] : DeviceMath::multiply_add(a[j], b[j], sum);
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// The columns of a thread. Groups meet as on a hypercube: those whose numbers differ in one bit
// exchange their second columns until all first columns have met all second ones; then half of the
// groups gets all that was first, the other half what was second, and both go on alone.
template <typename T, typename Shape>
class JacobiColumns {
 public:
  static constexpr int rows = Shape::rows;
  static constexpr int width = Shape::width;
  using Column = JacobiColumn<T, rows>;

  // exchanged, numbers: shared memory for columns, and for two numbers a column.
  __device__ __forceinline__ JacobiColumns(T* exchanged, T* numbers)
      : packs_(reinterpret_cast<Pack*>(exchanged)), numbers_(reinterpret_cast<Numbers*>(numbers)) {}

  Column first[width], second[width];

  // Rotates each column with each other one, and moves column i to group i / width / 2.
  __device__ __forceinline__ void sweep() {
    is_above_noise_ = is_unsettled_ = false;
#pragma unroll 1
    for (int groups = Shape::groups;; groups /= 2) {
      // Two rotations halve a scale at most.
      if (groups == Shape::groups || groups * width >= 32) measure();
      if (width > 1 && groups == Shape::groups) rotate_within();
#pragma unroll 1
      for (int step = 1; step < groups; ++step) {
        rotate();
        exchange(step & -step);
      }
      rotate();
      if (groups == 1) break;
      if (Shape::group() & (groups / 2)) swap_columns();
      exchange(groups / 2);
    }
    apply_scales();
  }

  // Of this thread's part of the last sweep; either is enough for all columns to be orthogonal, if
  // it is so for all threads.
  __device__ __forceinline__ bool was_noise() const { return !is_above_noise_; }
  __device__ __forceinline__ bool was_settled() const { return !is_unsettled_; }

  // Moves the columns to where they were before the sweep, once all threads have taken what was
  // exchanged.
  __device__ __forceinline__ void restore() {
    put(first, 0);
    put(second, 1);
    team_barrier<Shape::threads>();
    const int half = Shape::group() % 2;
    const int source = Shape::group() / 2 * Shape::lanes + Shape::lane();
    take(first, half, source);
    take(second, half, source + Shape::threads / 2);
  }

 private:
  struct alignas(16) Pack {
    T entries[Shape::pack];
  };
  struct Numbers {
    T scale;
    T square;
  };

  // Squares, those of dot products relative to those of the lengths. What is left alone, what may
  // be noise of rounding, and what in all dot products and tangents leaves nothing to do.
  static constexpr T negligible = 4 * unit_roundoff<T>() * unit_roundoff<T>();
  static constexpr T noise = 64 * unit_roundoff<T>() * unit_roundoff<T>();
  static constexpr T settled = unit_roundoff<T>();

  __device__ __forceinline__ void apply_scales() {
#pragma unroll
    for (int i = 0; i < width; ++i) {
#pragma unroll
      for (int j = 0; j < rows; ++j) {
        first[i].entries[j] *= first[i].scale;
        second[i].entries[j] *= second[i].scale;
      }
      first[i].scale = second[i].scale = 1;
    }
  }

  __device__ __forceinline__ void measure() {
    apply_scales();
    T squares[2 * width];
#pragma unroll
    for (int i = 0; i < width; ++i) {
      squares[2 * i] = share_of_product(first[i].entries, first[i].entries);
      squares[2 * i + 1] = share_of_product(second[i].entries, second[i].entries);
    }
    sum_over_group<Shape>(squares);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      first[i].square = squares[2 * i];
      second[i].square = squares[2 * i + 1];
    }
  }

  // The first columns with the second ones.
  __device__ __forceinline__ void rotate() {
#pragma unroll
    for (int r = 0; r < width; ++r) {
      T dots[width];
#pragma unroll
      for (int i = 0; i < width; ++i)
        dots[i] = share_of_product(first[i].entries, second[i ^ r].entries);
      sum_over_group<Shape>(dots);
#pragma unroll
      for (int i = 0; i < width; ++i) rotate(first[i], second[i ^ r], dots[i]);
    }
  }

  // Two first columns with each other, and two second ones.
  __device__ __forceinline__ void rotate_within() {
    static_assert(width <= 2);
    constexpr int other = width - 1;
    T dots[2] = {share_of_product(first[0].entries, first[other].entries),
                 share_of_product(second[0].entries, second[other].entries)};
    sum_over_group<Shape>(dots);
    rotate(first[0], first[other], dots[0]);
    rotate(second[0], second[other], dots[1]);
  }

  __device__ __forceinline__ void rotate(Column& p, Column& q, T product) {
    const T scales = p.scale * q.scale, inverse_scales = DeviceMath::rough_reciprocal(scales);
    const T dot = product * scales, dot_square = dot * dot;
    const T squares = p.square * q.square;
    const bool is_orthogonal = dot_square <= negligible * squares;
    // Cosine and sine of twice the angle are as the lengths' difference and twice the product.
    const T difference = q.square - p.square;
    const T inverse = DeviceMath::rough_inverse_square_root(
        DeviceMath::multiply_add(difference, difference, 4 * dot_square));
    const T cosine_square = DeviceMath::multiply_add(T(0.5) * fabs(difference), inverse, T(0.5));
    const T inverse_cosine = DeviceMath::rough_inverse_square_root(cosine_square);
    const T half_sine = (difference < 0 ? -dot : dot) * inverse;
    const T tangent = is_orthogonal ? T(0) : half_sine * (inverse_cosine * inverse_cosine);
    const T onto_first = tangent * (q.scale * q.scale * inverse_scales);
    const T onto_second = tangent * (p.scale * p.scale * inverse_scales);
#pragma unroll
    for (int j = 0; j < rows; ++j) {
      const T entry = p.entries[j];
      p.entries[j] = DeviceMath::multiply_add(-onto_first, q.entries[j], entry);
      q.entries[j] = DeviceMath::multiply_add(onto_second, entry, q.entries[j]);
    }
    // Refined: what does not keep lengths would leave other vectors than the matrix's.
    const T cosine = is_orthogonal ? T(1) : cosine_square * inverse_cosine;
    const T excess = DeviceMath::multiply_add(
        cosine * cosine, DeviceMath::multiply_add(tangent, tangent, T(1)), T(-1));
    const T refined = DeviceMath::multiply_add(T(-0.5) * cosine, excess, cosine);
    p.scale *= refined;
    q.scale *= refined;
    p.square -= tangent * dot;
    q.square += tangent * dot;
    is_above_noise_ |= dot_square > noise * squares;
    is_unsettled_ |= tangent * tangent > settled || dot_square > settled * squares;
  }

  __device__ __forceinline__ void swap_columns() {
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const Column kept = first[i];
      first[i] = second[i];
      second[i] = kept;
    }
  }

  // The second columns of groups whose numbers differ in that bit.
  __device__ __forceinline__ void exchange(int bit) {
    const int distance = bit * Shape::lanes;
    if (Shape::threads > warp_threads && distance >= warp_threads) {
      exchange_with_other_warp(distance);
      return;
    }
#pragma unroll
    for (int i = 0; i < width; ++i) {
#pragma unroll
      for (int j = 0; j < rows; ++j) exchange_lanes(second[i].entries[j], distance);
      exchange_lanes(second[i].scale, distance);
      exchange_lanes(second[i].square, distance);
    }
  }

  __device__ __forceinline__ static void exchange_lanes(T& value, int distance) {
    value = __shfl_xor_sync(all_lanes, value, distance);
  }

  // In one half of the memory, while others may still take what is in the other one.
  __device__ __forceinline__ void exchange_with_other_warp(int distance) {
    Numbers* const numbers = numbers_ + half_ * Shape::groups * width;
    put(second, half_);
    if (Shape::lane() == 0) {
#pragma unroll
      for (int i = 0; i < width; ++i) {
        numbers[Shape::group() * width + i] = {second[i].scale, second[i].square};
      }
    }
    team_barrier<Shape::threads>();
    const int source = int(threadIdx.x) ^ distance;
    take(second, half_, source);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const Numbers taken = numbers[source / Shape::lanes * width + i];
      second[i].scale = taken.scale;
      second[i].square = taken.square;
    }
    half_ ^= 1;
  }

  // Where a pack of a thread's columns lies.
  __device__ __forceinline__ Pack& pack_of(int half, int column, int index, int thread) const {
    return packs_[((half * width + column) * Shape::packs + index) * Shape::threads + thread];
  }

  __device__ __forceinline__ void put(const Column (&columns)[width], int half) const {
#pragma unroll
    for (int i = 0; i < width * Shape::packs; ++i) {
      Pack pack;
#pragma unroll
      for (int j = 0; j < Shape::pack; ++j) {
        pack.entries[j] = columns[i / Shape::packs].entries[i % Shape::packs * Shape::pack + j];
      }
      pack_of(half, i / Shape::packs, i % Shape::packs, int(threadIdx.x)) = pack;
    }
  }

  __device__ __forceinline__ void take(Column (&columns)[width], int half, int thread) const {
#pragma unroll
    for (int i = 0; i < width * Shape::packs; ++i) {
      const Pack pack = pack_of(half, i / Shape::packs, i % Shape::packs, thread);
#pragma unroll
      for (int j = 0; j < Shape::pack; ++j) {
        columns[i / Shape::packs].entries[i % Shape::packs * Shape::pack + j] = pack.entries[j];
      }
    }
  }

  Pack* const packs_;
  Numbers* const numbers_;
  int half_ = 0;
  bool is_above_noise_ = false, is_unsettled_ = false;
};

}  // namespace selkern::cuda
