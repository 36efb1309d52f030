// Means of feature maps over their positions, and relu on the way, by one block of threads.
#pragma once

#include "cuda/block_buffer.cuh"
#include "cuda/numeric.cuh"
#include "cuda/pooling_streams.cuh"

namespace selkern::cuda {

struct MapReduction {
  MapPlan plan;
  DType dtype;           // of x and y
  const void* x;         // [samples, units, positions]
  MapStrides x_strides;  //
  void* y;               // relu(x), the same shape; null: none
  MapStrides y_strides;  //
  void* means;           // [splits, samples, units]: shares of the mean that add up to it
  float scale;           // sum_scale(positions)
};

template <typename T, bool with_relu>
class MapReducer {
 public:
  __device__ __forceinline__ MapReducer(const MapReduction& task, unsigned block)
      : plan_(task.plan),
        tile_(task.plan, block),
        x_(static_cast<const T*>(task.x) + offset(task.x_strides)),
        y_(with_relu ? static_cast<T*>(task.y) + offset(task.y_strides) : nullptr),
        x_stride_(task.x_strides.position),
        y_stride_(task.y_strides.position),
        scale_(task.scale),
        means_(static_cast<R*>(task.means) +
               (tile_.split * plan_.samples + tile_.sample) * plan_.units + tile_.first_unit) {}

  __device__ __forceinline__ void run() const {
    switch (plan_.kind) {
      case MapKind::row_groups:
        return reduce_row_group();
      case MapKind::long_rows:
        return reduce_long_row();
      case MapKind::units_last:
        return reduce_units_last<vector_size<T>>();
      case MapKind::units_last_scalar:
        return reduce_units_last<1>();
    }
  }

 private:
  using R = Result<T>;

  __device__ __forceinline__ int64_t offset(const MapStrides& strides) const {
    return tile_.sample * strides.sample + tile_.first_unit * strides.unit;
  }

  __device__ __forceinline__ bool aligned_alike(const T* x, const T* y) const {
    return !with_relu || elements_to_boundary(x) == elements_to_boundary(y);
  }

  __device__ __forceinline__ R mean(const CompensatedSum<R>& sum) const {
    return sum.value() / (R(plan_.positions) * scale_);
  }

  template <int width>
  __device__ __forceinline__ static void rectify_pack(Pack<T, width>& pack) {
#pragma unroll
    for (int i = 0; i < width; ++i) pack.values[i] = rectify(pack.values[i]);
  }

  // What goes into a sum.
  __device__ __forceinline__ R scaled(T value) const { return widen(value) * scale_; }

  template <int width>
  __device__ __forceinline__ R sum_of(const Pack<T, width>& pack) const {
    R sums[width];
#pragma unroll
    for (int i = 0; i < width; ++i) sums[i] = scaled(pack.values[i]);
#pragma unroll
    for (int half = width / 2; half > 0; half /= 2) {
#pragma unroll
      for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
    }
    return sums[0];
  }

  // The maps pass through shared memory: loads are then vectors whatever the length of a map, and
  // several maps can share a warp.
  __device__ void reduce_row_group() const {
    const int positions = int(plan_.positions);
    const int rows = int(min(plan_.tile_units, plan_.units - tile_.first_unit));
    const bool alike = aligned_alike(x_, y_);
    // Vectors of x become vectors of the stage.
    const int shift = alike ? (vector_size<T> - elements_to_boundary(x_)) % vector_size<T> : 0;
    T* stage = block_buffer<T>() + shift;
    for_each_pack(x_, static_cast<const T*>(nullptr), int64_t(rows) * positions, alike,
                  [&](int64_t i, auto pack, auto) {
                    if constexpr (with_relu) {
                      rectify_pack(pack);
                      store(y_ + i, pack);
                    }
                    store_shared(stage + i, pack);
                  });
    __syncthreads();

    int lanes = 1;
    while (lanes < warpSize && 2 * lanes * rows <= block_threads) lanes *= 2;
    const int lane = int(threadIdx.x) % lanes;
    for (int first = 0; first < rows; first += block_threads / lanes) {
      const int row = first + int(threadIdx.x) / lanes;
      auto sum = CompensatedSum<R>{};
      if (row < rows) sum = sum_of_row(stage, row, lane, lanes, positions);
      add_lanes(sum, lanes);
      if (row < rows && lane == 0) means_[row] = mean(sum);
    }
  }

  // Of every `lanes`-th element. Where each row starts is turned by its number, so that rows of a
  // power of two of elements do not all ask the same bank of shared memory.
  __device__ __forceinline__ CompensatedSum<R> sum_of_row(const T* stage, int row, int lane,
                                                          int lanes, int positions) const {
    constexpr int batch = 4;
    const T* elements = stage + row * positions;
    const int turn = positions > 0 ? row * lanes % positions : 0;
    const auto element = [&](int p) {
      const int turned = p + turn;
      return scaled(elements[turned < positions ? turned : turned - positions]);
    };
    auto sum = CompensatedSum<R>{};
    int p = lane;
    for (; p + (batch - 1) * lanes < positions; p += batch * lanes) {
      sum.add((element(p) + element(p + lanes)) +
              (element(p + 2 * lanes) + element(p + 3 * lanes)));
    }
    for (; p < positions; p += lanes) sum.add(element(p));
    return sum;
  }

  __device__ void reduce_long_row() const {
    constexpr int warps = block_threads / warp_threads;
    const T* x = x_ + tile_.begin;
    T* y = with_relu ? y_ + tile_.begin : nullptr;
    auto sum = CompensatedSum<R>{};
    for_each_pack(x, static_cast<const T*>(nullptr), tile_.end - tile_.begin, aligned_alike(x, y),
                  [&](int64_t i, auto pack, auto) {
                    if constexpr (with_relu) {
                      rectify_pack(pack);
                      store(y + i, pack);
                    }
                    sum.add(sum_of(pack));
                  });
    auto* warp_sums = block_buffer<CompensatedSum<R>>();
    const int lane = int(threadIdx.x) % warpSize, warp = int(threadIdx.x) / warpSize;
    add_lanes(sum, warpSize);
    if (lane == 0) warp_sums[warp] = sum;
    __syncthreads();
    if (warp == 0) {
      sum = lane < warps ? warp_sums[lane] : CompensatedSum<R>{};
      add_lanes(sum, warps);
      if (lane == 0) means_[0] = mean(sum);
    }
  }

  template <int width>
  __device__ void reduce_units_last() const {
    const UnitsLastThread thread(plan_.lanes);
    const int unit = thread.lane * width;
    const bool has_units = tile_.first_unit + unit < plan_.units;
    CompensatedSum<R> sums[width] = {};
    if (has_units) {
      R batch[width] = {};
      T* y = with_relu ? y_ + unit : nullptr;
      for_each_position<width>(
          x_ + unit, x_stride_, static_cast<const T*>(nullptr), 0, tile_.begin, tile_.end, thread,
          [&](int64_t position, auto pack, const auto&) {
            if constexpr (with_relu) {
              rectify_pack(pack);
              store(y + position * y_stride_, pack);
            }
#pragma unroll
            for (int i = 0; i < width; ++i) batch[i] += scaled(pack.values[i]);
          },
          [&] {
#pragma unroll
            for (int i = 0; i < width; ++i) {
              sums[i].add(batch[i]);
              batch[i] = 0;
            }
          });
    }
    add_groups<width>(sums, thread);
    if (has_units && thread.group == 0) {
#pragma unroll
      for (int i = 0; i < width; ++i) means_[unit + i] = mean(sums[i]);
    }
  }

  // Adds the sums of all groups of positions into those of the first group.
  template <int width>
  __device__ __forceinline__ void add_groups(CompensatedSum<R> (&sums)[width],
                                             const UnitsLastThread& thread) const {
    auto* stage = block_buffer<CompensatedSum<R>>();
    // The slots of a round are those of its givers alone, so rounds need no barrier between them.
    const int slot = int(threadIdx.x);
    for (int half = thread.groups / 2; half > 0; half /= 2) {
      if (thread.group >= half && thread.group < 2 * half) {
#pragma unroll
        for (int i = 0; i < width; ++i) stage[i * block_threads + slot] = sums[i];
      }
      __syncthreads();
      if (thread.group < half) {
        const int giver = slot + half * plan_.lanes;
#pragma unroll
        for (int i = 0; i < width; ++i) sums[i].add(stage[i * block_threads + giver]);
      }
    }
  }

  const MapPlan& plan_;
  const MapTile tile_;
  const T* x_;
  T* y_;
  const int64_t x_stride_;
  const int64_t y_stride_;
  const R scale_;
  R* means_;
};

}  // namespace selkern::cuda
