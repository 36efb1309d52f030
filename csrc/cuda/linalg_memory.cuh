// Where a block keeps a matrix that it makes tridiagonal, and the threads that share it.
#pragma once

#include <cuda_runtime.h>

#include <cmath>

#include "cuda/linalg.h"
#include "cuda/shared_memory.cuh"
#include "cuda/warp.cuh"

namespace selkern::cuda {

// Row i of A - v w^T - w v^T, and of the vector that the result is multiplied with.
template <typename T>
struct alignas(16) RowUpdate {
  T v;
  T w;
  T next;
  T unused;
};

template <typename T>
struct alignas(2 * sizeof(T)) Rotation {
  T cosine;
  T sine;
};

// Dynamic shared memory of eigensolver_bytes.
template <typename T>
struct EigensolverMemory {
  static constexpr int warps = block_threads / warp_threads;

  int size;
  int stride;             // of the matrix's rows
  RowUpdate<T>* updates;  // [size]
  T* shares;              // [2, block_threads]
  T* diagonal;            // [size] of the tridiagonal matrix
  T* off_diagonal;        // [size]
  T* matrix;              // [size, stride]

  __device__ __forceinline__ explicit EigensolverMemory(int64_t matrix_size)
      : size(int(matrix_size)),
        stride(int(row_stride(matrix_size))),
        updates(dynamic_shared<RowUpdate<T>>()),
        shares(reinterpret_cast<T*>(updates + size)),
        diagonal(shares + 2 * block_threads),
        off_diagonal(diagonal + size),
        matrix(off_diagonal + size) {}

  // Rotations of one of two sweeps, in the place of the updates.
  __device__ __forceinline__ Rotation<T>* rotations(int sweep) const {
    return reinterpret_cast<Rotation<T>*>(updates) + sweep * size;
  }
  __device__ __forceinline__ T& at(int row, int column) const {
    return matrix[row * stride + column];
  }
  __device__ __forceinline__ static int lane() { return int(threadIdx.x) % warp_threads; }
  __device__ __forceinline__ static int warp() { return int(threadIdx.x) / warp_threads; }
};

// How the rows and columns from `first` on are dealt out: a warp takes 32 columns and, where there
// are more warps than that, every rows_apart-th row.
template <typename T>
struct TrailingTile {
  int columns;  // of all warps, a multiple of 32
  int rows_apart;
  int first_row;
  int column;
  bool is_idle;
  int share;  // where this thread's share of the column's sum goes

  __device__ __forceinline__ TrailingTile(const EigensolverMemory<T>& memory, int first) {
    const int groups = (memory.size - first + warp_threads - 1) / warp_threads;
    const int row_group = quotient(memory.warp(), groups);
    const int offset = (memory.warp() - row_group * groups) * warp_threads + memory.lane();
    columns = groups * warp_threads;
    rows_apart = quotient(memory.warps, groups);
    first_row = first + row_group;
    column = first + offset;
    is_idle = row_group >= rows_apart || column >= memory.size;
    share = row_group * columns + offset;
  }

 private:
  // Of small numbers, faster than a division of integers.
  __device__ __forceinline__ static int quotient(int a, int b) {
    return int(__fdividef(float(a) + 0.5f, float(b)));
  }
};

// Sum of a column's shares: those of one row group lie `columns` after those of the one before.
template <typename T>
__device__ __forceinline__ T sum_of_shares(const T* shares, int offset, int columns,
                                           int rows_apart) {
  T sum = 0;
  for (int group = 0; group < rows_apart; ++group) sum += shares[group * columns + offset];
  return sum;
}

}  // namespace selkern::cuda
