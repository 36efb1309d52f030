// Eigenvalues and eigenvectors of a symmetric matrix by one-sided Jacobi rotations.
#pragma once

#include "cuda/linalg.h"
#include "cuda/linalg_jacobi_columns.cuh"
#include "cuda/shared_memory.cuh"
#include "cuda/warp.cuh"

namespace selkern::cuda {

// Rotations of the columns of A + c I, positive definite by the choice of c, leave the eigenvectors
// times the eigenvalues of A + c I once all columns are orthogonal. The columns that the shape has
// and the matrix has not stay zero.
template <typename T, typename Shape>
class JacobiSolver {
 public:
  __device__ __forceinline__ explicit JacobiSolver(const EigensolverParams& params)
      : size_(int(params.size)),
        given_(static_cast<const T*>(params.matrices) + blockIdx.x * params.size * params.size),
        values_(static_cast<T*>(params.eigenvalues) + blockIdx.x * params.size),
        vectors_(params.eigenvectors == nullptr ? nullptr
                                                : static_cast<T*>(params.eigenvectors) +
                                                      blockIdx.x * params.size * params.size),
        matrix_(dynamic_shared<T>()),
        exchanged_(matrix_ + Shape::matrix_elements),
        numbers_(exchanged_ + Shape::exchanged_elements),
        of_columns_(numbers_ + 2 * Shape::columns) {}

  __device__ void run() const {
    const T largest = team_max(load_matrix(), 0);
    // Infinite also where an entry is not a number.
    if (largest - largest != 0) return fill(T(NAN));
    const int exponent = scale_exponent(largest);
    Columns columns(exchanged_, numbers_);
    const T shift = take_columns(columns, power_of_two<T>(-exponent));
    if (!orthogonalise(columns)) return fill(T(NAN));
    normalise(columns);
    if constexpr (rotations_are_many) repeat_last_sweep(columns, shift);
    store(columns, power_of_two<T>(exponent));
  }

 private:
  static constexpr int rows = Shape::rows;
  static constexpr int width = Shape::width;
  static constexpr int threads = Shape::threads;
  // Of float32, whose rough functions take what is not normal for zero, and a matrix whose entries
  // are not normal either stays small when it is scaled.
  static constexpr T least_shift = sizeof(T) == sizeof(double) ? T(0) : T(0x1p-17);
  static constexpr int most_sweeps = 40;  // few matrices take more than 12
  // So many that their rounding shows in eigenvalues that are close to each other.
  static constexpr bool rotations_are_many = Shape::columns > 32;
  using Columns = JacobiColumns<T, Shape>;
  using Column = typename Columns::Column;

  __device__ __forceinline__ T& at(int row, int column) const {
    return matrix_[row * Shape::stride + column];
  }

  // Both triangles. Returns the largest magnitude that the thread has seen.
  __device__ __forceinline__ T load_matrix() const {
    constexpr int batch = 8;  // loads in flight
    T largest = 0;
#pragma unroll 1
    for (int start = int(threadIdx.x); start < Shape::columns * Shape::columns;
         start += batch * threads) {
      T values[batch];
#pragma unroll
      for (int j = 0; j < batch; ++j) {
        const int row = (start + j * threads) / Shape::columns;
        const int column = (start + j * threads) % Shape::columns;
        const int below = max(row, column);
        values[j] = below < size_ ? given_[below * size_ + min(row, column)] : T(0);
      }
#pragma unroll
      for (int j = 0; j < batch; ++j) {
        const int row = (start + j * threads) / Shape::columns;
        const int column = (start + j * threads) % Shape::columns;
        const bool is_finite = values[j] - values[j] == 0;
        largest = max(largest, is_finite ? fabs(values[j]) : T(INFINITY));
        at(row, column) = values[j];
      }
    }
    return largest;
  }

  // Of all threads, which then have written what they had to. use: another number each time.
  __device__ __forceinline__ T team_max(T value, int use) const {
    constexpr int warps = threads / warp_threads;
    value = lane_max(value);
    T* const shares = of_columns_ + use * warps;
    if (warps > 1 && threadIdx.x % warp_threads == 0) shares[threadIdx.x / warp_threads] = value;
    team_barrier<threads>();
    for (int w = 0; warps > 1 && w < warps; ++w) value = max(value, shares[w]);
    return value;
  }

  // Those of A + c I. Leaves A scaled, and returns c.
  __device__ __forceinline__ T take_columns(Columns& columns, T scale) const {
    T magnitudes[2 * width];
#pragma unroll
    for (int i = 0; i < width; ++i) {
      magnitudes[2 * i] = take_column(columns.first[i], first_index(i), scale);
      magnitudes[2 * i + 1] = take_column(columns.second[i], second_index(i), scale);
    }
    sum_over_group<Shape>(magnitudes);
    T largest = 0;
#pragma unroll
    for (int i = 0; i < 2 * width; ++i) largest = max(largest, magnitudes[i]);
    // No eigenvalue is larger than the largest sum of a row's magnitudes.
    const T bound = team_max(largest, 1);
    const T shift = bound > 0 ? max(bound * T(1.125), least_shift) : T(1);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      add_to_diagonal(columns.first[i], first_index(i), shift);
      add_to_diagonal(columns.second[i], second_index(i), shift);
    }
    return shift;
  }

  __device__ __forceinline__ static int first_index(int i) { return Shape::group() * width + i; }
  __device__ __forceinline__ static int second_index(int i) {
    return Shape::columns / 2 + first_index(i);
  }

  // Returns the thread's share of the sum of magnitudes.
  __device__ __forceinline__ T take_column(Column& column, int index, T scale) const {
    T sum = 0;
#pragma unroll
    for (int j = 0; j < rows; ++j) {
      T& entry = at(index, Shape::row(j, Shape::lane()));
      column.entries[j] = entry * scale;
      entry = column.entries[j];
      sum += fabs(column.entries[j]);
    }
    column.scale = 1;
    return sum;
  }

  __device__ __forceinline__ void add_to_diagonal(Column& column, int index, T shift) const {
#pragma unroll
    for (int j = 0; j < rows; ++j) {
      if (Shape::row(j, Shape::lane()) == index && index < size_) column.entries[j] += shift;
    }
  }

  // Whether it converged.
  __device__ __forceinline__ bool orthogonalise(Columns& columns) const {
#pragma unroll 1
    for (int sweep = 0; sweep < most_sweeps; ++sweep) {
      columns.sweep();
      if (all_of_team(columns.was_noise()) || all_of_team(columns.was_settled())) return true;
      columns.restore();
      // All have taken their columns from the memory that is written next.
      team_barrier<threads>();
    }
    return false;
  }

  __device__ __forceinline__ static bool all_of_team(bool value) {
    if constexpr (threads == warp_threads) {
      return __all_sync(all_lanes, value) != 0;
    } else {
      return __syncthreads_and(value) != 0;
    }
  }

  // A column that is zero stays zero.
  __device__ __forceinline__ static void normalise(Columns& columns) {
    T squares[2 * width];
#pragma unroll
    for (int i = 0; i < 2 * width; ++i) {
      squares[i] = share_of_product(either(columns, i).entries, either(columns, i).entries);
    }
    sum_over_group<Shape>(squares);
#pragma unroll
    for (int i = 0; i < 2 * width; ++i) {
      const T inverse = squares[i] > 0 ? DeviceMath::inverse_square_root(squares[i]) : T(0);
      either(columns, i).square = squares[i];
#pragma unroll
      for (int j = 0; j < rows; ++j) either(columns, i).entries[j] *= inverse;
    }
  }

  // From the product of A + c I and the vectors, instead of the one that was rotated to here.
  __device__ __forceinline__ void repeat_last_sweep(Columns& columns, T shift) const {
    T products[2 * width][rows];
    multiply(columns, products);
#pragma unroll
    for (int i = 0; i < 2 * width; ++i) {
      Column& column = either(columns, i);
#pragma unroll
      for (int j = 0; j < rows; ++j) {
        column.entries[j] = DeviceMath::multiply_add(shift, column.entries[j], products[i][j]);
      }
    }
    columns.sweep();
    normalise(columns);
  }

  template <typename AnyColumns>
  __device__ __forceinline__ static auto& either(AnyColumns& columns, int i) {
    return i < width ? columns.first[i] : columns.second[i - width];
  }

  __device__ __forceinline__ void store(const Columns& columns, T scale) const {
    T values[2 * width];
    find_quotients(columns, values);
    const int index = 2 * width * Shape::group();
    if (Shape::lane() == 0) {
#pragma unroll
      for (int i = 0; i < 2 * width; ++i) of_columns_[index + i] = values[i];
    }
    team_barrier<threads>();
#pragma unroll
    for (int i = 0; i < 2 * width; ++i) {
      store_column(either(columns, i), values[i], index + i, scale);
    }
    if (vectors_ == nullptr) return;
    team_barrier<threads>();
    for (int i = int(threadIdx.x); i < Shape::columns * Shape::columns; i += threads) {
      const int row = i / Shape::columns, column = i % Shape::columns;
      if (row < size_ && column < size_) vectors_[row * size_ + column] = at(row, column);
    }
  }

  // Rayleigh's: more accurate than the lengths, less the shift. What is no column of the matrix
  // comes last.
  __device__ __forceinline__ void find_quotients(const Columns& columns,
                                                 T (&quotients)[2 * width]) const {
    T products[2 * width][rows];
    multiply(columns, products);
#pragma unroll
    for (int i = 0; i < 2 * width; ++i) {
      quotients[i] = share_of_product(either(columns, i).entries, products[i]);
    }
    sum_over_group<Shape>(quotients);
#pragma unroll
    for (int i = 0; i < 2 * width; ++i) {
      if (either(columns, i).square == 0) quotients[i] = T(INFINITY);
    }
  }

  // The matrix with the columns.
  __device__ __forceinline__ void multiply(const Columns& columns,
                                           T (&products)[2 * width][rows]) const {
#pragma unroll
    for (int i = 0; i < 2 * width * rows; ++i) products[i / rows][i % rows] = 0;
#pragma unroll 1
    for (int other = 0; other < Shape::lanes; ++other) {
#pragma unroll
      for (int j = 0; j < rows; ++j) {
        T factors[2 * width];
#pragma unroll
        for (int i = 0; i < 2 * width; ++i) {
          factors[i] = __shfl_xor_sync(all_lanes, either(columns, i).entries[j], other);
        }
        const T* const entries = &at(Shape::row(j, Shape::lane() ^ other), 0);
#pragma unroll
        for (int k = 0; k < rows; ++k) {
          const T entry = entries[Shape::row(k, Shape::lane())];
#pragma unroll
          for (int i = 0; i < 2 * width; ++i) {
            products[i][k] = DeviceMath::multiply_add(entry, factors[i], products[i][k]);
          }
        }
      }
    }
  }

  // An eigenvalue and, where the matrix was, its vector.
  __device__ __forceinline__ void store_column(const Column& column, T value, int index,
                                               T scale) const {
    const int rank = rank_of(value, index);
    if (rank >= size_) return;
    if (Shape::lane() == 0) values_[rank] = value * scale;
#pragma unroll
    for (int j = 0; j < rows; ++j) at(Shape::row(j, Shape::lane()), rank) = column.entries[j];
  }

  // Equal ones keep their order.
  __device__ __forceinline__ int rank_of(T value, int index) const {
    int ranks[1] = {0};
#pragma unroll 4
    for (int i = Shape::lane(); i < Shape::columns; i += Shape::lanes) {
      const T other = of_columns_[i];
      ranks[0] += other < value || (other == value && i < index);
    }
    sum_over_group<Shape>(ranks);
    return ranks[0];
  }

  __device__ __forceinline__ void fill(T value) const {
#pragma unroll 1
    for (int i = int(threadIdx.x); i < size_; i += threads) values_[i] = value;
    if (vectors_ == nullptr) return;
#pragma unroll 1
    for (int i = int(threadIdx.x); i < size_ * size_; i += threads) vectors_[i] = value;
  }

  const int size_;
  const T* const given_;
  T* const values_;
  T* const vectors_;     // null: not wanted
  T* const matrix_;      // [columns, stride]
  T* const exchanged_;   // [2, columns / 2, columns]
  T* const numbers_;     // [2, columns]
  T* const of_columns_;  // [columns]
};

}  // namespace selkern::cuda
