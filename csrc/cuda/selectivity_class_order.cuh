// Samples in the order of their classes: a stable counting sort by one block of threads.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/block.h"
#include "cuda/block_buffer.cuh"
#include "cuda/selectivity_class_order.h"
#include "cuda/shared_memory.cuh"

namespace selkern::cuda {

__device__ __forceinline__ int64_t class_of(const Labels& labels, int64_t sample) {
  const int64_t label = labels.is_int64 ? static_cast<const int64_t*>(labels.data)[sample]
                                        : static_cast<const int32_t*>(labels.data)[sample];
  if (label == labels.ignore_index) return ignored_class;
  return label >= 0 && label < labels.num_classes ? label : invalid_class;
}

// The sum of the values of the threads before this one; total: that of all. Once a kernel, because
// nothing keeps a second call from overwriting what a thread still reads.
__device__ __forceinline__ int64_t sum_before(int64_t value, int64_t& total) {
  struct WarpTotals;
  constexpr int warps = block_threads / warp_threads;
  auto* warp_totals = static_shared<WarpTotals, int64_t, warps>();
  const int lane = int(threadIdx.x) % warpSize, warp = int(threadIdx.x) / warpSize;
  int64_t sum = value;
  for (int offset = 1; offset < warpSize; offset *= 2) {
    const int64_t other = __shfl_up_sync(all_lanes, sum, offset);
    if (lane >= offset) sum += other;
  }
  if (lane == warpSize - 1) warp_totals[warp] = sum;
  __syncthreads();
  total = 0;
  for (int w = 0; w < warps; ++w) {
    if (w < warp) sum += warp_totals[w];
    total += warp_totals[w];
  }
  return sum - value;
}

class ClassSorter {
 public:
  // Few classes are counted in shared memory.
  static constexpr int shared_classes = 1024;

  __device__ __forceinline__ ClassSorter(const Labels& labels, const ClassOrder& order)
      : labels_(labels), order_(order), next_(order.ends) {
    if (labels.num_classes <= shared_classes) next_ = block_buffer<int64_t>();
  }

  __device__ void run() const {
    clear();
    __syncthreads();
    count_samples();
    __syncthreads();
    place_classes();
    __syncthreads();
    place_samples();
    if (next_ != order_.ends) {
      for (int64_t k = threadIdx.x; k < labels_.num_classes; k += block_threads) {
        order_.ends[k] = next_[k];
      }
    }
  }

 private:
  __device__ __forceinline__ void clear() const {
    for (int64_t k = threadIdx.x; k < labels_.num_classes; k += block_threads) next_[k] = 0;
    if (threadIdx.x == 0) {
      *order_.has_invalid = 0;
      *order_.blocks_done = 0;
    }
  }

  // A warp's samples of one class.
  struct Peers {
    unsigned lanes;
    int leader;
    int rank;  // of this lane among them

    __device__ __forceinline__ int count() const { return __popc(lanes); }
    __device__ __forceinline__ bool is_leader() const { return rank == 0; }
  };

  __device__ __forceinline__ static Peers peers_of(int64_t label) {
    const unsigned lanes = __match_any_sync(all_lanes, static_cast<unsigned long long>(label));
    const unsigned before = (1u << threadIdx.x % warpSize) - 1;
    return {lanes, __ffs(lanes) - 1, __popc(lanes & before)};
  }

  __device__ __forceinline__ int64_t class_or_ignored(int64_t sample) const {
    return sample < labels_.samples ? class_of(labels_, sample) : ignored_class;
  }

  __device__ __forceinline__ void count_samples() const {
    for (int64_t first = 0; first < labels_.samples; first += block_threads) {
      const int64_t label = class_or_ignored(first + threadIdx.x);
      const Peers peers = peers_of(label);
      if (!peers.is_leader()) continue;
      if (label >= 0) {
        atomicAdd(reinterpret_cast<unsigned long long*>(next_ + label),
                  static_cast<unsigned long long>(peers.count()));
      } else if (label == invalid_class) {
        atomicExch(order_.has_invalid, 1);
      }
    }
  }

  // Each thread takes adjacent classes.
  __device__ __forceinline__ void place_classes() const {
    const int64_t share = divide_up(labels_.num_classes, block_threads);
    const int64_t begin = min(threadIdx.x * share, labels_.num_classes);
    const int64_t end = min(begin + share, labels_.num_classes);
    int64_t own = 0, total;
    for (int64_t k = begin; k < end; ++k) own += next_[k];
    int64_t start = sum_before(own, total);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t count = next_[k];
      order_.counts[k] = count;
      next_[k] = start;
      start += count;
    }
    if (threadIdx.x == 0) *order_.kept = total;
  }

  // Warp after warp, so that samples of a class keep their order.
  __device__ __forceinline__ void place_samples() const {
    const int warp = int(threadIdx.x) / warpSize;
    for (int64_t first = 0; first < labels_.samples; first += block_threads) {
      const int64_t sample = first + threadIdx.x;
      const int64_t label = class_or_ignored(sample);
      const Peers peers = peers_of(label);
      for (int turn = 0; turn < block_threads / warpSize; ++turn) {
        if (warp == turn) {
          int64_t start = 0;
          if (peers.is_leader() && label >= 0) {
            start = next_[label];
            next_[label] = start + peers.count();
          }
          start = __shfl_sync(all_lanes, start, peers.leader);
          if (label >= 0) {
            order_.samples[start + peers.rank] = sample;
            order_.classes[start + peers.rank] = label;
          }
        }
        __syncthreads();
      }
    }
  }

  const Labels& labels_;
  const ClassOrder& order_;
  int64_t* next_;  // [num_classes] first counts, then where the next sample of each class goes
};

}  // namespace selkern::cuda
