#include "cuda/linalg.h"

#include <cmath>
#include <limits>
#include <string>

#include "cuda/launch.cuh"
#include "cuda/linalg_bisection.cuh"
#include "cuda/linalg_memory.cuh"
#include "cuda/linalg_ql.cuh"
#include "cuda/linalg_tridiagonal.cuh"
#include "cuda/numeric.cuh"
#include "cuda/ordered_bits.cuh"

namespace selkern::cuda {
namespace {

// The entries of a matrix that a thread takes, in the order of memory.
class Entries {
 public:
  __device__ __forceinline__ Entries(int size, int threads)
      : size_(size),
        row_step_(threads / size),
        column_step_(threads % size),
        row_(int(threadIdx.x) / size),
        column_(int(threadIdx.x) % size) {}

  __device__ __forceinline__ int row() const { return row_; }
  __device__ __forceinline__ int column() const { return column_; }
  __device__ __forceinline__ bool is_lower() const { return column_ <= row_; }
  __device__ __forceinline__ void advance() {
    row_ += row_step_;
    column_ += column_step_;
    if (column_ < size_) return;
    column_ -= size_;
    ++row_;
  }

 private:
  int size_, row_step_, column_step_, row_, column_;
};

__device__ __forceinline__ int exponent_of(float x) { return ilogbf(x); }
__device__ __forceinline__ int exponent_of(double x) { return ilogb(x); }
__device__ __forceinline__ float power_of_two(float, int exponent) { return ldexpf(1, exponent); }
__device__ __forceinline__ double power_of_two(double, int exponent) {
  return ldexp(1.0, exponent);
}

template <typename T, int threads>
class Eigensolver {
 public:
  __device__ __forceinline__ Eigensolver(const EigensolverParams& params)
      : memory_(params.size),
        size_(memory_.size),
        given_(static_cast<const T*>(params.matrices) + blockIdx.x * params.size * params.size),
        values_(static_cast<T*>(params.eigenvalues) + blockIdx.x * params.size),
        vectors_(static_cast<T*>(params.eigenvectors) + blockIdx.x * params.size * params.size) {}

  template <bool with_vectors>
  __device__ void run() const {
    const T largest = load_matrix();
    // Infinite also where an entry is not a number.
    if (largest - largest != 0) return fill<with_vectors>(T(NAN));
    // So that entries are below 1, and neither their squares' sums overflow nor they underflow.
    constexpr int most = std::numeric_limits<T>::max_exponent - 2;
    const int exponent = largest > 0 ? min(max(exponent_of(largest) + 1, 1 - most), most) : 0;
    const T scale = power_of_two(T(), exponent);
    mirror(power_of_two(T(), -exponent));
    team_barrier<threads>();
    TridiagonalReduction<T, threads>(memory_).run();
    team_barrier<threads>();
    if constexpr (with_vectors) ReflectorProduct<T, threads>(memory_).run();
    // Larger matrices take so many sweeps that their eigenvalues lose digits.
    if constexpr (!with_vectors || values_are_bisected) {
      Bisection<T, threads>(memory_).run(
          [&](int i, T eigenvalue) { values_[i] = eigenvalue * scale; });
    }
    if constexpr (with_vectors) {
      team_barrier<threads>();
      if (!QlIteration<T, threads>(memory_).run()) return fill<true>(T(NAN));
      store_in_order(scale);
    }
  }

 private:
  // Returns the largest magnitude there is.
  __device__ __forceinline__ T load_matrix() const {
    T largest = 0;
    const int entries = size_ * size_;
    Entries place(size_, threads);
    for (int i = int(threadIdx.x); i < entries; i += batch * threads) {
      T values[batch];
#pragma unroll
      for (int j = 0; j < batch; ++j) {
        values[j] = i + j * threads < entries ? given_[i + j * threads] : T(0);
      }
#pragma unroll
      for (int j = 0; j < batch; ++j) {
        if (place.is_lower() && place.row() < size_) {
          const bool is_finite = values[j] - values[j] == 0;
          largest = max(largest, is_finite ? fabs(values[j]) : T(INFINITY));
          memory_.at(place.row(), place.column()) = values[j];
        }
        place.advance();
      }
    }
    largest = lane_max(largest);
    if constexpr (threads > warp_threads) {
      if (memory_.lane() == 0) memory_.shares[memory_.warp()] = largest;
      team_barrier<threads>();
      for (int w = 0; w < memory_.warps; ++w) largest = max(largest, memory_.shares[w]);
    }
    return largest;
  }

  __device__ __forceinline__ void mirror(T scale) const {
    for (Entries place(size_, threads); place.row() < size_; place.advance()) {
      if (!place.is_lower()) continue;
      const T value = memory_.at(place.row(), place.column()) * scale;
      memory_.at(place.row(), place.column()) = value;
      memory_.at(place.column(), place.row()) = value;
    }
  }

  // Ascending.
  __device__ __forceinline__ void store_in_order(T scale) const {
    // Each rank's. Not where others may still read what the last sweep was.
    int* const column_of = reinterpret_cast<int*>(memory_.shares + threads);
    const T* const diagonal = memory_.diagonal;
    for (int i = int(threadIdx.x); i < size_; i += threads) {
      // A sum with zero is never -0, which would not be equal to 0.
      const auto key = ordered_bits(diagonal[i] + 0);
      int rank = 0;
      for (int j = 0; j < size_; ++j) {
        const auto other = ordered_bits(diagonal[j] + 0);
        rank += other < key || (other == key && j < i);
      }
      if constexpr (!values_are_bisected) values_[rank] = diagonal[i] * scale;
      column_of[rank] = i;
    }
    team_barrier<threads>();
    for (Entries place(size_, threads); place.row() < size_; place.advance()) {
      vectors_[place.row() * size_ + place.column()] =
          memory_.at(place.row(), column_of[place.column()]);
    }
  }

  template <bool with_vectors>
  __device__ __forceinline__ void fill(T value) const {
    for (int i = int(threadIdx.x); i < size_; i += threads) values_[i] = value;
    if constexpr (with_vectors) {
      for (int i = int(threadIdx.x); i < size_ * size_; i += threads) vectors_[i] = value;
    }
  }

  static constexpr int batch = 8;  // loads in flight
  static constexpr bool values_are_bisected = threads > warp_threads;

  const EigensolverMemory<T, threads> memory_;
  const int size_;
  const T* const given_;
  T* const values_;
  T* const vectors_;
};

// A block, of one warp or several, takes one matrix.
template <typename T, int threads, bool with_vectors>
__global__ __launch_bounds__(threads) void eigensolver_kernel(
    const __grid_constant__ EigensolverParams params) {
  Eigensolver<T, threads>(params).template run<with_vectors>();
}

template <typename T, int threads>
void launch_for(const EigensolverParams& params, cudaStream_t stream) {
  const auto kernel = params.eigenvectors != nullptr ? &eigensolver_kernel<T, threads, true>
                                                     : &eigensolver_kernel<T, threads, false>;
  launch(kernel, params.batch, threads, stream, params,
         eigensolver_bytes(params.size, params.dtype));
}

}  // namespace

int64_t largest_eigensolver_size(DType dtype) {
  const int64_t bytes = most_shared_bytes();
  int64_t size = 0;
  while (size < block_threads && eigensolver_bytes(size + 1, dtype) <= bytes) ++size;
  return size;
}

void launch_eigensolver(const EigensolverParams& params, cudaStream_t stream) {
  const int64_t largest = largest_eigensolver_size(params.dtype);
  if (params.size > largest) {
    const bool is_double = params.dtype == DType::float64;
    raise_value_error("a must hold matrices of at most " + std::to_string(largest) +
                      " rows, which is what a block's shared memory holds in " +
                      (is_double ? "float64" : "float32") + ", got " + std::to_string(params.size));
  }
  const bool is_small = params.size <= largest_warp_matrix;
  if (params.dtype == DType::float64) {
    (is_small ? &launch_for<double, warp_threads> : &launch_for<double, block_threads>)(params,
                                                                                        stream);
  } else {
    (is_small ? &launch_for<float, warp_threads> : &launch_for<float, block_threads>)(params,
                                                                                      stream);
  }
}

}  // namespace selkern::cuda
