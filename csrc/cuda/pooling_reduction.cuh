// Means of feature maps over their positions, and relu on the way, by one block of threads.
#pragma once

#include "cuda/block_buffer.cuh"
#include "cuda/numeric.cuh"
#include "cuda/pooling_streams.cuh"
#include "cuda/pooling_vector_sums.cuh"

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

  __device__ __forceinline__ void run(RowGroups) const { reduce_row_group(); }
  __device__ __forceinline__ void run(LongRows) const { reduce_long_row(); }
  __device__ __forceinline__ void run(UnitsLast) const { reduce_units_last<vector_size<T>>(); }
  __device__ __forceinline__ void run(UnitsLastScalar) const { reduce_units_last<1>(); }

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

  __device__ void reduce_row_group() const {
    constexpr int width = vector_size<T>;
    const int positions = int(plan_.positions);
    const int rows = int(min(plan_.tile_units, plan_.units - tile_.first_unit));
    const int count = rows * positions;
    if (positions < width) return reduce_short_rows(rows, positions);
    const bool alike = aligned_alike(x_, y_);
    const int shift = alike ? (width - elements_to_boundary(x_)) % width : 0;
    const VectorSums<T> sums(positions, plan_.reciprocal, shift, scale_);
    const int first = alike && shift > 0 ? 1 : 0;
    const int last = alike ? int(unsigned(shift + count) / width) : 0;
    const int begin = first * width - shift;
    for_each_vector(x_ + begin, static_cast<const T*>(nullptr), last - first,
                    [&](int v, auto pack, const auto&) {
                      if constexpr (with_relu) {
                        rectify_pack(pack);
                        store(y_ + begin + v * width, pack);
                      }
                      sums.add(first + v, pack);
                    });
    // Few, unless x and y lie differently.
    const int others = first + int(unsigned(shift + count + width - 1) / width) - last;
    for (int i = threadIdx.x; i < others; i += block_threads) {
      const int v = i < first ? i : last + i - first;
      sums.add(v, reduce_elements(v * width - shift, count));
    }
    __syncthreads();
    reduce_rows(rows,
                [&](int row, int lane, int lanes) { return sums.sum_of_row(row, lane, lanes); });
  }

  // Those of a vector that are there.
  __device__ __forceinline__ Pack<T, vector_size<T>> reduce_elements(int begin, int count) const {
    Pack<T, vector_size<T>> pack;
#pragma unroll
    for (int k = 0; k < vector_size<T>; ++k) {
      const int i = begin + k;
      pack.values[k] = i >= 0 && i < count ? x_[i] : narrow<T>(0);
    }
    if constexpr (with_relu) {
      rectify_pack(pack);
#pragma unroll
      for (int k = 0; k < vector_size<T>; ++k) {
        const int i = begin + k;
        if (i >= 0 && i < count) y_[i] = pack.values[k];
      }
    }
    return pack;
  }

  // Maps of less than a vector pass through shared memory.
  __device__ void reduce_short_rows(int rows, int positions) const {
    const bool alike = aligned_alike(x_, y_);
    // Vectors of x become vectors of the stage.
    const int shift = alike ? (vector_size<T> - elements_to_boundary(x_)) % vector_size<T> : 0;
    T* stage = block_buffer<T>() + shift;
    for_each_pack(x_, static_cast<const T*>(nullptr), int64_t(rows) * positions, alike,
                  [&](int64_t i, auto pack, const auto&) {
                    if constexpr (with_relu) {
                      rectify_pack(pack);
                      store(y_ + i, pack);
                    }
                    store_shared(stage + i, pack);
                  });
    __syncthreads();
    reduce_rows(rows, [&](int row, int lane, int lanes) {
      auto sum = CompensatedSum<R>{};
      for (int p = lane; p < positions; p += lanes) sum.add(scaled(stage[row * positions + p]));
      return sum;
    });
  }

  // sum_of_row(row, lane, lanes): one lane's part.
  template <typename SumOfRow>
  __device__ __forceinline__ void reduce_rows(int rows, SumOfRow sum_of_row) const {
    const int lanes = plan_.lanes;
    const int lane = int(threadIdx.x) & (lanes - 1);
    for (int i = 0; i < rows * lanes; i += block_threads) {
      const int row = int(unsigned(i + threadIdx.x) >> (__ffs(lanes) - 1));
      auto sum = CompensatedSum<R>{};
      if (row < rows) sum = sum_of_row(row, lane, lanes);
      add_lanes(sum, lanes);
      if (row < rows && lane == 0) means_[row] = mean(sum);
    }
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
