#include "cuda/linalg.h"

#include <cmath>
#include <string>

#include "cuda/launch.cuh"
#include "cuda/linalg_bisection.cuh"
#include "cuda/linalg_jacobi.cuh"
#include "cuda/linalg_math.cuh"
#include "cuda/linalg_memory.cuh"
#include "cuda/linalg_ql.cuh"
#include "cuda/linalg_tridiagonal.cuh"
#include "cuda/ordered_bits.cuh"

namespace selkern::cuda {
namespace {

// The entries of a matrix that a thread takes, in the order of memory.
class Entries {
 public:
  __device__ __forceinline__ explicit Entries(int size)
      : size_(size),
        row_step_(block_threads / size),
        column_step_(block_threads % size),
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

// By way of a tridiagonal matrix.
template <typename T>
class TridiagonalSolver {
 public:
  __device__ __forceinline__ explicit TridiagonalSolver(const EigensolverParams& params)
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
    const int exponent = scale_exponent(largest);
    const T scale = power_of_two<T>(exponent);
    mirror(power_of_two<T>(-exponent));
    __syncthreads();
    TridiagonalReduction<T>(memory_).run();
    __syncthreads();
    if constexpr (with_vectors) ReflectorProduct<T>(memory_).run();
    // The iteration takes so many sweeps that eigenvalues lose digits.
    Bisection<T>(memory_).run([&](int i, T eigenvalue) { values_[i] = eigenvalue * scale; });
    if constexpr (with_vectors) {
      __syncthreads();
      if (!QlIteration<T>(memory_).run()) return fill<true>(T(NAN));
      store_in_order();
    }
  }

 private:
  // Returns the largest magnitude there is.
  __device__ __forceinline__ T load_matrix() const {
    T largest = 0;
    const int entries = size_ * size_;
    Entries place(size_);
    for (int i = int(threadIdx.x); i < entries; i += batch * block_threads) {
      T values[batch];
#pragma unroll
      for (int j = 0; j < batch; ++j) {
        values[j] = i + j * block_threads < entries ? given_[i + j * block_threads] : T(0);
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
    if (memory_.lane() == 0) memory_.shares[memory_.warp()] = largest;
    __syncthreads();
    for (int w = 0; w < memory_.warps; ++w) largest = max(largest, memory_.shares[w]);
    return largest;
  }

  __device__ __forceinline__ void mirror(T scale) const {
    for (Entries place(size_); place.row() < size_; place.advance()) {
      if (!place.is_lower()) continue;
      const T value = memory_.at(place.row(), place.column()) * scale;
      memory_.at(place.row(), place.column()) = value;
      memory_.at(place.column(), place.row()) = value;
    }
  }

  // Ascending.
  __device__ __forceinline__ void store_in_order() const {
    // Each rank's. Not where others may still read what the last sweep was.
    int* const column_of = reinterpret_cast<int*>(memory_.shares + block_threads);
    const T* const diagonal = memory_.diagonal;
    for (int i = int(threadIdx.x); i < size_; i += block_threads) {
      // A sum with zero is never -0, which would not be equal to 0.
      const auto key = ordered_bits(diagonal[i] + 0);
      int rank = 0;
      for (int j = 0; j < size_; ++j) {
        const auto other = ordered_bits(diagonal[j] + 0);
        rank += other < key || (other == key && j < i);
      }
      column_of[rank] = i;
    }
    __syncthreads();
    for (Entries place(size_); place.row() < size_; place.advance()) {
      vectors_[place.row() * size_ + place.column()] =
          memory_.at(place.row(), column_of[place.column()]);
    }
  }

  template <bool with_vectors>
  __device__ __forceinline__ void fill(T value) const {
    for (int i = int(threadIdx.x); i < size_; i += block_threads) values_[i] = value;
    if constexpr (with_vectors) {
      for (int i = int(threadIdx.x); i < size_ * size_; i += block_threads) vectors_[i] = value;
    }
  }

  static constexpr int batch = 8;  // loads in flight

  const EigensolverMemory<T> memory_;
  const int size_;
  const T* const given_;
  T* const values_;
  T* const vectors_;
};

// A block takes one matrix.
template <typename T, bool with_vectors>
__global__ __launch_bounds__(block_threads) void tridiagonal_kernel(
    const __grid_constant__ EigensolverParams params) {
  TridiagonalSolver<T>(params).template run<with_vectors>();
}

template <typename T, int columns, int lanes, int width>
__global__ __launch_bounds__(JacobiShape<columns, lanes, width>::threads) void jacobi_kernel(
    const __grid_constant__ EigensolverParams params) {
  JacobiSolver<T, JacobiShape<columns, lanes, width>>(params).run();
}

template <typename T>
void launch_tridiagonal(const EigensolverParams& params, cudaStream_t stream) {
  const auto kernel =
      params.eigenvectors != nullptr ? &tridiagonal_kernel<T, true> : &tridiagonal_kernel<T, false>;
  launch(kernel, params.batch, block_threads, stream, params,
         eigensolver_bytes(params.size, params.dtype));
}

// Returns whether a matrix and the memory of the current device fit the kernel.
template <typename T, int columns, int lanes, int width>
bool launch_jacobi(const EigensolverParams& params, cudaStream_t stream) {
  using Shape = JacobiShape<columns, lanes, width>;
  constexpr int64_t bytes = Shape::elements * sizeof(T);
  if (params.size > columns || bytes > most_shared_bytes()) return false;
  launch(&jacobi_kernel<T, columns, lanes, width>, params.batch, Shape::threads, stream, params,
         bytes);
  return true;
}

// Rotations take more arithmetic than the tridiagonal form and fewer steps that wait for another,
// which pays where vectors are wanted, or the matrix is small.
template <typename T>
void launch_for(const EigensolverParams& params, cudaStream_t stream) {
  const bool with_vectors = params.eigenvectors != nullptr;
  if (launch_jacobi<T, 16, 4, 1>(params, stream)) return;
  if (launch_jacobi<T, 32, 4, 1>(params, stream)) return;
  if (with_vectors && launch_jacobi<T, 64, 8, 2>(params, stream)) return;
  if constexpr (sizeof(T) == sizeof(float)) {
    if (with_vectors && launch_jacobi<T, 128, 8, 2>(params, stream)) return;
  }
  launch_tridiagonal<T>(params, stream);
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
  const auto launch_solver =
      params.dtype == DType::float64 ? &launch_for<double> : &launch_for<float>;
  launch_solver(params, stream);
}

}  // namespace selkern::cuda
