// Implicit QL iteration on a symmetric tridiagonal matrix, with eigenvectors.
#pragma once

#include "common/linalg_tridiagonal.h"
#include "cuda/block.h"
#include "cuda/linalg_math.cuh"
#include "cuda/linalg_memory.cuh"

namespace selkern::cuda {

// Sweeps follow each other in one lane, each from the tridiagonal matrix that the last has left.
// Meanwhile the other warps apply the last one's rotations to the vectors.
template <typename T>
class QlIteration {
 public:
  using Memory = EigensolverMemory<T>;

  __device__ __forceinline__ explicit QlIteration(const Memory& memory)
      : memory_(memory), size_(memory.size), blocks_(reinterpret_cast<Block*>(memory.shares)) {}

  // The tridiagonal matrix and, in the matrix, the vectors to be turned are there for all threads;
  // so are the results afterwards. Whether it converged.
  __device__ bool run() const {
    Block last{0, 0};
    for (int sweep = 0; sweep <= most_sweeps_per_row * size_; ++sweep) {
      if (memory_.warp() == 0) chase(last.first, sweep % 2);
      if (first_row < size_ && sweep > 0) turn_rows(last, memory_.rotations((sweep + 1) % 2));
      __syncthreads();
      last = blocks_[sweep % 2];
      if (last.first >= last.last) return true;
    }
    return false;
  }

 private:
  // An unreduced block of the matrix.
  struct Block {
    int first;
    int last;  // below first: there is none
  };

  __device__ __forceinline__ bool splits_after(int i) const {
    return i >= size_ - 1 ||
           is_negligible<T>(memory_.off_diagonal[i], memory_.diagonal[i], memory_.diagonal[i + 1]);
  }

  // The first row from `row` on that is, or is not, the last of its block.
  __device__ __forceinline__ int find(int row, bool splits) const {
    for (; row < size_; row += warp_threads) {
      const int i = row + memory_.lane();
      const unsigned found = __ballot_sync(all_lanes, i < size_ && splits_after(i) == splits);
      if (found != 0) return row + __ffs(found) - 1;
    }
    return size_;
  }

  // By one warp.
  __device__ __forceinline__ void chase(int from, int buffer) const {
    const int first = find(from, false);
    const int last = first < size_ ? find(first, true) : -1;
    if (memory_.lane() == warp_threads - 1) blocks_[buffer] = {first, last};
    // The bulge overwrites what the others have looked at.
    __syncwarp();
    if (memory_.lane() > 0 || last < 0) return;
    chase_bulge(blocks_[buffer], memory_.rotations(buffer));
  }

  __device__ __forceinline__ void chase_bulge(Block block, Rotation<T>* rotations) const {
    T* const diagonals = memory_.diagonal;
    T* const off_diagonals = memory_.off_diagonal;
    T below = diagonals[block.last];
    T diagonal = diagonals[block.last - 1], off_diagonal = off_diagonals[block.last - 1];
    auto bulge = Bulge<DeviceMath, T>::start(diagonals[block.first], diagonals[block.first + 1],
                                             off_diagonals[block.first], below);
    for (int i = block.last - 1; i >= block.first; --i) {
      // Asked for early: there is nothing else to wait with.
      const int above = max(i - 1, block.first);
      const T next_diagonal = diagonals[above], next_off_diagonal = off_diagonals[above];
      const T radius = bulge.advance(off_diagonal, diagonal, below);
      diagonals[i + 1] = below;
      off_diagonals[i + 1] = i + 1 == block.last ? T(0) : radius;
      rotations[i] = with_unit_length(bulge.cosine, bulge.sine);
      below = diagonal;
      diagonal = next_diagonal;
      off_diagonal = next_off_diagonal;
    }
    diagonals[block.first] = below - bulge.correction;
    off_diagonals[block.first] = bulge.target;
  }

  // Sweeps turn by nearly the same angles: what rounding adds to a length adds up.
  __device__ __forceinline__ static Rotation<T> with_unit_length(T cosine, T sine) {
    const T excess = DeviceMath::multiply_add(cosine, cosine, T(-1)) + sine * sine;
    return {cosine - cosine * (excess / 2), sine - sine * (excess / 2)};
  }

  // A thread takes a row of the vectors, or a few.
  __device__ __forceinline__ void turn_rows(const Block& block,
                                            const Rotation<T>* rotations) const {
    for (int row = first_row; row < size_; row += turning_threads) {
      T* const entries = &memory_.at(row, 0);
      T below = entries[block.last];
      int i = block.last - 1;
      constexpr int batch = 4;
      for (; i - (batch - 1) >= block.first; i -= batch) {
        T entry[batch];
        Rotation<T> rotation[batch];
#pragma unroll
        for (int j = 0; j < batch; ++j) {
          entry[j] = entries[i - j];
          rotation[j] = rotations[i - j];
        }
#pragma unroll
        for (int j = 0; j < batch; ++j) {
          entries[i - j + 1] = turn(rotation[j], entry[j], below);
        }
      }
      for (; i >= block.first; --i) entries[i + 1] = turn(rotations[i], entries[i], below);
      entries[block.first] = below;
    }
  }

  // Returns what is final of the lower of two entries; the upper one becomes the next lower one.
  __device__ __forceinline__ static T turn(const Rotation<T>& rotation, T entry, T& below) {
    const T turned = rotation.sine * entry + rotation.cosine * below;
    below = rotation.cosine * entry - rotation.sine * below;
    return turned;
  }

  static constexpr int turning_threads = block_threads - warp_threads;

  const Memory& memory_;
  const int size_;
  Block* const blocks_;  // of the last two sweeps
  // Of this thread; the warp that chases turns none.
  const int first_row = memory_.warp() == 0 ? size_ : int(threadIdx.x) - warp_threads;
};

}  // namespace selkern::cuda
