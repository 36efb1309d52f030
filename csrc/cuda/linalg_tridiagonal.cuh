// A symmetric matrix to tridiagonal form by Householder's reflections, and their product.
#pragma once

#include "common/linalg_tridiagonal.h"
#include "cuda/block.h"
#include "cuda/linalg_math.cuh"
#include "cuda/linalg_memory.cuh"

namespace selkern::cuda {

// Reflection k, I - v v^T with |v|^2 = 2, makes column k zero below its off-diagonal element. v
// takes that column's place, and has no entries up to row k. A sweep over the matrix makes the
// update of one reflection and multiplies the result with the vector of the next.
template <typename T>
class TridiagonalReduction {
 public:
  using Memory = EigensolverMemory<T>;

  __device__ __forceinline__ explicit TridiagonalReduction(const Memory& memory)
      : memory_(memory), size_(memory.size) {}

  // The matrix is there for all threads; so are the results after another barrier.
  __device__ void run() const {
    int columns = 0, rows_apart = 0;  // of the products' shares
    for (int k = 0; k < size_; ++k) {
      if (memory_.warp() == 0) make_reflector(k, columns, rows_apart);
      if (k == size_ - 1) return;
      __syncthreads();
      const TrailingTile<T> tile(memory_, k + 1);
      if (!tile.is_idle) sweep(tile);
      columns = tile.columns;
      rows_apart = tile.rows_apart;
      __syncthreads();
    }
  }

 private:
  // By one warp; a lane takes the rows k + lane, k + lane + 32 and so on.
  __device__ __forceinline__ void make_reflector(int k, int columns, int rows_apart) const {
    const int first = k + memory_.lane();
    const Update update = prepare_update(k, columns, rows_apart);
    T head = 0, squares = 0;
    for (int i = first; i < size_; i += warp_threads) {
      const T v = k > 0 ? memory_.updates[i].next : T(0);
      const T w = k > 0 ? memory_.updates[i].w - update.share * v : T(0);
      const T x = memory_.at(i, k) - (v * update.w_k + w * update.v_k);
      memory_.updates[i].v = v;
      memory_.updates[i].w = w;
      memory_.at(i, k) = x;
      if (i == first) head = x;
      if (i > k + 1) squares += x * x;
    }
    squares = lane_sum(squares);
    const T diagonal = __shfl_sync(all_lanes, head, 0);
    const T alpha = __shfl_sync(all_lanes, head, 1);
    // Where there is nothing to make zero, or nothing that counts, nothing is reflected.
    const bool reflects = squares >= T(vanishing_square);
    const T length = reflects ? DeviceMath::square_root(alpha * alpha + squares) : T(0);
    const T beta = alpha > 0 ? -length : length;
    const T scale =
        reflects ? DeviceMath::inverse_square_root(length * (length + fabs(alpha))) : T(0);
    for (int i = first; i < size_; i += warp_threads) {
      if (i == k) continue;
      const T v = (i == k + 1 ? alpha - beta : memory_.at(i, k)) * scale;
      memory_.updates[i].next = v;
      memory_.at(i, k) = v;
    }
    if (memory_.lane() == 0) {
      memory_.diagonal[k] = diagonal;
      memory_.off_diagonal[k] = reflects ? beta : alpha;
    }
  }

  struct Update {
    T share;  // w = p - share * v with p = A v
    T v_k;
    T w_k;
  };

  // Leaves p where w will be.
  __device__ __forceinline__ Update prepare_update(int k, int columns, int rows_apart) const {
    if (k == 0) return {0, 0, 0};
    T dot = 0;
    for (int i = k + memory_.lane(); i < size_; i += warp_threads) {
      const T p = sum_of_shares(memory_.shares, i - k, columns, rows_apart);
      dot += p * memory_.updates[i].next;
      memory_.updates[i].w = p;
    }
    const T share = lane_sum(dot) / 2;
    const T v_k = memory_.updates[k].next;
    return {share, v_k, sum_of_shares(memory_.shares, 0, columns, rows_apart) - share * v_k};
  }

  __device__ __forceinline__ void sweep(const TrailingTile<T>& tile) const {
    constexpr int batch = 4;
    const RowUpdate<T> own = memory_.updates[tile.column];
    T sums[batch] = {};
    const int stride = memory_.stride * tile.rows_apart;
    T* entry = &memory_.at(tile.first_row, tile.column);
    int row = tile.first_row;
    for (; row + (batch - 1) * tile.rows_apart < size_; row += batch * tile.rows_apart) {
      RowUpdate<T> updates[batch];
      T entries[batch];
#pragma unroll
      for (int j = 0; j < batch; ++j) {
        updates[j] = memory_.updates[row + j * tile.rows_apart];
        entries[j] = entry[j * stride];
      }
#pragma unroll
      for (int j = 0; j < batch; ++j) {
        entries[j] -= updates[j].v * own.w + updates[j].w * own.v;
        entry[j * stride] = entries[j];
        sums[j] += entries[j] * updates[j].next;
      }
      entry += batch * stride;
    }
    for (; row < size_; row += tile.rows_apart, entry += stride) {
      const RowUpdate<T> update = memory_.updates[row];
      const T updated = *entry - (update.v * own.w + update.w * own.v);
      *entry = updated;
      sums[0] += updated * update.next;
    }
    memory_.shares[tile.share] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  const Memory& memory_;
  const int size_;
};

// The product of the reflections, from the last to the first: what precedes reflection k is the
// identity in the rows and columns up to k + 1, so that it can grow where the vectors were.
template <typename T>
class ReflectorProduct {
 public:
  using Memory = EigensolverMemory<T>;

  __device__ __forceinline__ explicit ReflectorProduct(const Memory& memory)
      : memory_(memory), size_(memory.size) {}

  // The reflectors are there for all threads; so is the product after another barrier.
  __device__ void run() const {
    int columns = 0, rows_apart = 0;
    for (int k = size_ - 2; k >= 0; --k) {
      const TrailingTile<T> tile(memory_, k + 1);
      if (!tile.is_idle) {
        const T* shares = memory_.shares + (k + 1) % 2 * block_threads;
        const T dot = tile.column == k + 1
                          ? memory_.at(k + 1, k)
                          : sum_of_shares(shares, tile.column - (k + 2), columns, rows_apart);
        reflect(tile, k, dot);
      }
      columns = tile.columns;
      rows_apart = tile.rows_apart;
      __syncthreads();
    }
    for (int i = int(threadIdx.x); i < size_; i += block_threads) {
      memory_.at(0, i) = T(i == 0);
      memory_.at(i, 0) = T(i == 0);
    }
  }

 private:
  // Of a column; dot: its product with v.
  __device__ __forceinline__ void reflect(const TrailingTile<T>& tile, int k, T dot) const {
    constexpr int batch = 4;
    T sums[batch] = {};
    const auto before = [&](int row) {
      if (row == k + 1 || tile.column == k + 1) return T(row == tile.column);
      return memory_.at(row, tile.column);
    };
    const auto of_next = [&](int row) { return k > 0 ? memory_.at(row, k - 1) : T(0); };
    int row = tile.first_row;
    for (; row + (batch - 1) * tile.rows_apart < size_; row += batch * tile.rows_apart) {
      T entries[batch], v[batch], next[batch];
#pragma unroll
      for (int j = 0; j < batch; ++j) {
        const int r = row + j * tile.rows_apart;
        entries[j] = before(r);
        v[j] = memory_.at(r, k);
        next[j] = of_next(r);
      }
#pragma unroll
      for (int j = 0; j < batch; ++j) {
        entries[j] -= v[j] * dot;
        memory_.at(row + j * tile.rows_apart, tile.column) = entries[j];
        sums[j] += entries[j] * next[j];
      }
    }
    for (; row < size_; row += tile.rows_apart) {
      const T entry = before(row) - memory_.at(row, k) * dot;
      memory_.at(row, tile.column) = entry;
      sums[0] += entry * of_next(row);
    }
    memory_.shares[k % 2 * block_threads + tile.share] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  const Memory& memory_;
  const int size_;
};

}  // namespace selkern::cuda
