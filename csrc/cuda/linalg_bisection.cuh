// Eigenvalues of a symmetric tridiagonal matrix by counting those below a point.
#pragma once

#include "common/linalg_tridiagonal.h"
#include "cuda/block.h"
#include "cuda/linalg_memory.cuh"

namespace selkern::cuda {

// Threads that lie side by side look for the same eigenvalue, and cut its interval at some points
// each. What they agree on depends on the matrix alone, and keeps the eigenvalues in order.
template <typename T>
class Bisection {
 public:
  using Memory = EigensolverMemory<T>;

  __device__ __forceinline__ explicit Bisection(const Memory& memory)
      : memory_(memory), size_(memory.size) {
    while (2 * searchers_ * size_ <= block_threads && searchers_ < warp_threads) searchers_ *= 2;
  }

  // The tridiagonal matrix is there for all threads. Calls store(index, eigenvalue) once for each.
  template <typename Store>
  __device__ void run(const Store& store) const {
    const int searcher = int(threadIdx.x) % searchers_;
    const int index = int(threadIdx.x) / searchers_;
    const int sections = points * searchers_ + 1;
    auto [low, high] = bounds();
    // All eigenvalues lie within one interval at first, and then in one of as many sections.
    for (T width = 1; width > unit_roundoff<T>() / 2; width /= T(sections)) {
      const T step = (high - low) / T(sections);
      T x[points];
      int below[points];
#pragma unroll
      for (int j = 0; j < points; ++j) x[j] = low + step * T(j * searchers_ + searcher + 1);
      count_below(x, below);
      int section = 0;
#pragma unroll
      for (int j = points - 1; j >= 0; --j) {
        const unsigned above = __ballot_sync(all_lanes, below[j] > index) >> group_start();
        const unsigned of_group = above & group_mask();
        section = of_group != 0     ? j * searchers_ + __ffs(of_group) - 1
                  : j == points - 1 ? sections - 1
                                    : section;
      }
      const T start = low;
      if (section > 0) low = start + step * T(section);
      if (section < sections - 1) high = start + step * T(section + 1);
    }
    if (searcher == 0 && index < size_) store(index, low + (high - low) / 2);
  }

 private:
  // As many as hide the latency of a division.
  static constexpr int points = 2;

  __device__ __forceinline__ int group_start() const {
    return memory_.lane() / searchers_ * searchers_;
  }
  __device__ __forceinline__ unsigned group_mask() const {
    return 0xffffffffu >> (warp_threads - searchers_);
  }

  struct Interval {
    T low;
    T high;
  };

  // Gershgorin's.
  __device__ __forceinline__ Interval bounds() const {
    T low = memory_.diagonal[0], high = low;
    for (int i = memory_.lane(); i < size_; i += warp_threads) {
      const T above = i > 0 ? fabs(memory_.off_diagonal[i - 1]) : T(0);
      const T below = i < size_ - 1 ? fabs(memory_.off_diagonal[i]) : T(0);
      low = min(low, memory_.diagonal[i] - (above + below));
      high = max(high, memory_.diagonal[i] + (above + below));
    }
    low = lane_min(low);
    high = lane_max(high);
    const T margin = 4 * unit_roundoff<T>() * max(fabs(low), fabs(high));
    return {low - margin, high + margin};
  }

  // Pivots keep away from zero and stay far below what the reciprocal flushes to zero: the detours
  // of __fdividef around such numbers are not needed.
  __device__ __forceinline__ static float quotient(float a, float b) {
#if defined(__CUDA_ARCH__)
    float reciprocal;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(b));
    return a * reciprocal;
#else
    return a / b;
#endif
  }
  __device__ __forceinline__ static double quotient(double a, double b) { return a / b; }

  // Sturm's count: the negative pivots of the matrix less x times the identity.
  __device__ __forceinline__ void count_below(const T (&x)[points], int (&below)[points]) const {
    T pivots[points];
#pragma unroll
    for (int j = 0; j < points; ++j) {
      pivots[j] = 1;
      below[j] = 0;
    }
    T coupling = 0;  // square of the off-diagonal element above
    for (int i = 0; i < size_; ++i) {
      const T diagonal = memory_.diagonal[i], off_diagonal = memory_.off_diagonal[i];
#pragma unroll
      for (int j = 0; j < points; ++j) {
        const T pivot = (diagonal - x[j]) - quotient(coupling, pivots[j]);
        pivots[j] = fabs(pivot) < T(vanishing_square) ? -T(vanishing_square) : pivot;
        below[j] += pivots[j] < 0;
      }
      coupling = off_diagonal * off_diagonal;
    }
  }

  const Memory& memory_;
  const int size_;
  int searchers_ = 1;  // for an eigenvalue, a power of two
};

}  // namespace selkern::cuda
