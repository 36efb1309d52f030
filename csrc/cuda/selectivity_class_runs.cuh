// Largest class mean of a unit and the mean of the others, from samples sorted by class.
#pragma once

#include "cuda/block.h"
#include "cuda/numeric.cuh"
#include "cuda/selectivity.h"
#include "cuda/selectivity_class_order.h"
#include "cuda/shared_memory.cuh"

namespace selkern::cuda {

// Of the class means seen so far, in ascending order of their classes.
template <typename Out>
struct ClassExtremes {
  Out maximum;
  CompensatedSum<Out> others;  // scaled
  int64_t winner;
  int64_t present;

  __device__ __forceinline__ void add(Out mean, int64_t label, Out scale) {
    add(ClassExtremes{mean, CompensatedSum<Out>{}, label, 1}, scale);
  }

  __device__ __forceinline__ void add(const ClassExtremes& later, Out scale) {
    if (later.present == 0) return;
    if (present == 0) {
      *this = later;
      return;
    }
    const bool is_larger = later.maximum > maximum;
    others.add(later.others);
    others.add((is_larger ? maximum : later.maximum) * scale);
    if (is_larger) {
      maximum = later.maximum;
      winner = later.winner;
    }
    present += later.present;
  }
};

// Samples of one class that follow each other in the order.
template <typename R>
struct ClassRun {
  CompensatedSum<R> sum;
  int64_t label;
  int64_t count;

  __device__ __forceinline__ void add(const ClassRun& later) {
    if (later.count == 0) return;
    sum.add(later.sum);
    label = later.label;
    count += later.count;
  }

  __device__ __forceinline__ R mean(R scale) const { return sum.value() / (R(count) * scale); }
};

// What one warp makes of its share of the order. A class may begin before the share and end after.
template <typename Out, typename R>
struct ShareOfOrder {
  ClassRun<R> head;  // of the class that began before the share; no samples: none did
  bool head_ends;    // whether it ends in the share
  ClassExtremes<Out> inside;
  ClassRun<R> tail;  // of the class that goes on after the share; no samples: none does
};

template <typename Out, typename T>
class ShareWalker {
 public:
  using R = Result<T>;

  // unit: of this lane, or at least view.units; the last one takes its place then.
  __device__ __forceinline__ ShareWalker(const LayerMeansView& view, int64_t unit,
                                         const ClassOrder& order)
      : order_(order),
        means_(static_cast<const T*>(view.means) + min(unit, view.units - 1)),
        row_stride_(view.row_stride),
        has_units_(view.units > 0) {}

  // Entries [begin, end) of [0, kept).
  __device__ __forceinline__ ShareOfOrder<Out, R> walk(int64_t begin, int64_t end, int64_t kept) {
    if (begin == end || !has_units_) return share_;
    const int64_t before = begin > 0 ? order_.classes[begin - 1] : ignored_class;
    const int64_t after = end < kept ? order_.classes[end] : ignored_class;
    run_.label = order_.classes[begin];
    in_head_ = run_.label == before;
    for (int64_t first = begin; first < end; first += warpSize) walk_entries(first, end);
    if (run_.label != after) {
      end_run();
    } else if (in_head_) {
      share_.head = run_;
    } else {
      share_.tail = run_;
    }
    return share_;
  }

 private:
  // One entry a lane, shared by shuffles: the rows they point to are then fetched side by side.
  __device__ __forceinline__ void walk_entries(int64_t first, int64_t end) {
    constexpr int batch = 8;
    const int lane = int(threadIdx.x) % warpSize;
    const int entries = int(min(end - first, int64_t(warpSize)));
    int64_t sample = 0, label = ignored_class;
    if (lane < entries) {
      sample = order_.samples[first + lane];
      label = order_.classes[first + lane];
    }
    for (int start = 0; start < entries; start += batch) {
      // Each lane loads something each time: a condition would make it wait for the first before it
      // asks for the others.
      T values[batch];
#pragma unroll
      for (int j = 0; j < batch; ++j) {
        const int64_t row = __shfl_sync(all_lanes, sample, min(start + j, entries - 1));
        values[j] = means_[row * row_stride_];
      }
#pragma unroll
      for (int j = 0; j < batch; ++j) {
        const int64_t entry_label = __shfl_sync(all_lanes, label, start + j);
        if (start + j < entries) add(widen(values[j]) * R(order_.scale), entry_label);
      }
    }
  }

  __device__ __forceinline__ void add(R value, int64_t label) {
    if (label != run_.label) {
      end_run();
      run_ = {CompensatedSum<R>{}, label, 0};
    }
    run_.sum.add(value);
    ++run_.count;
  }

  __device__ __forceinline__ void end_run() {
    if (in_head_) {
      share_.head = run_;
      share_.head_ends = true;
      in_head_ = false;
    } else {
      share_.inside.add(Out(run_.mean(order_.scale)), run_.label, Out(order_.scale));
    }
  }

  const ClassOrder& order_;
  const T* means_;
  const int64_t row_stride_;
  const bool has_units_;  // the layer
  bool in_head_ = false;
  ClassRun<R> run_{};
  ShareOfOrder<Out, R> share_{};
};

struct SharesOfOrder;

// Of the unit of each lane; in the first warp. Every warp takes an equal share of the samples.
template <typename Out, typename T>
__device__ __forceinline__ ClassExtremes<Out> extremes_of_unit(const LayerMeansView& view,
                                                               int64_t unit,
                                                               const ClassOrder& order) {
  using R = Result<T>;
  using Widest = ShareOfOrder<Out, Out>;
  constexpr int warps = block_threads / warp_threads;
  const int lane = int(threadIdx.x) % warpSize, warp = int(threadIdx.x) / warpSize;
  // One array for all dtypes that the kernel handles.
  auto* shares = reinterpret_cast<ShareOfOrder<Out, R>*>(
      static_shared<SharesOfOrder, Widest, block_threads>());
  const int64_t kept = *order.kept;
  shares[threadIdx.x] = ShareWalker<Out, T>(view, unit, order)
                            .walk(kept * warp / warps, kept * (warp + 1) / warps, kept);
  __syncthreads();

  ClassExtremes<Out> extremes{};
  if (warp > 0) return extremes;
  ClassRun<R> run{};
  for (int w = 0; w < warps; ++w) {
    const ShareOfOrder<Out, R>& share = shares[w * warpSize + lane];
    run.add(share.head);
    if (share.head_ends) {
      extremes.add(Out(run.mean(order.scale)), run.label, Out(order.scale));
      run = {};
    }
    extremes.add(share.inside, Out(order.scale));
    run.add(share.tail);
  }
  return extremes;
}

}  // namespace selkern::cuda
