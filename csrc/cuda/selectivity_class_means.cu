#include <algorithm>
#include <cmath>

#include "cuda/launch.cuh"
#include "cuda/numeric.cuh"
#include "cuda/selectivity.h"
#include "cuda/selectivity_class_order.cuh"
#include "cuda/vectors.cuh"

namespace selkern::cuda {
namespace {

struct ClassOrderTask {
  Labels labels;
  ClassOrder order;
};

__global__ __launch_bounds__(block_threads) void class_order_kernel(
    const __grid_constant__ ClassOrderTask task) {
  ClassSorter(task.labels, task.order).run();
}

// ----------------------------------------------------------------------------------------- means

constexpr int class_warps = 4;
constexpr int class_threads = class_warps * warp_threads;

struct ClassStages;

// Adds rows of x times scale, every fourth of samples[begin .. end): those of a warp.
template <typename T, int width>
__device__ __forceinline__ void add_rows(const T* x, int64_t row_stride, const int64_t* samples,
                                         int64_t begin, int64_t end, Result<T> scale,
                                         CompensatedSum<Result<T>> (&sums)[width]) {
  for (int64_t i = begin; i < end; i += class_warps * loads_in_flight) {
    LoadedPack<T, width> packs[loads_in_flight];
#pragma unroll
    for (int j = 0; j < loads_in_flight; ++j) {
      const int64_t entry = i + j * class_warps;
      if (entry < end) packs[j] = load<width>(x + samples[entry] * row_stride);
    }
#pragma unroll
    for (int j = 0; j < loads_in_flight; ++j) {
      if (i + j * class_warps >= end) continue;
      const Pack<T, width> pack = packs[j].unpack();
#pragma unroll
      for (int c = 0; c < width; ++c) sums[c].add(widen(pack.values[c]) * scale);
    }
  }
}

// Rows of means are aligned to vectors where those of x are.
template <int width, typename R>
__device__ __forceinline__ void store_means(R* means, const R (&values)[width]) {
  constexpr int part = width == 1 ? 1 : vector_size<R>;
#pragma unroll
  for (int c = 0; c < width; c += part) {
    Pack<R, part> stored;
#pragma unroll
    for (int i = 0; i < part; ++i) stored.values[i] = values[c + i];
    store(means + c, stored);
  }
}

struct ClassMeansTask {
  ClassMeansParams params;
  ClassOrder order;
  int64_t block_classes;
};

// A block takes a few classes, mostly one, and a tile of units: a pack of units a lane, every
// fourth sample a warp.
template <typename T, int width>
__global__ __launch_bounds__(class_threads) void class_means_kernel(
    const __grid_constant__ ClassMeansTask task) {
  using R = Result<T>;
  const ClassMeansParams& params = task.params;
  const ClassOrder& order = task.order;
  const unsigned tiles = unsigned(divide_up(params.units, warp_threads * width));
  const int lane = int(threadIdx.x) % warpSize, warp = int(threadIdx.x) / warpSize;
  const int64_t unit = (int64_t(blockIdx.x % tiles) * warpSize + lane) * width;
  const bool has_units = unit < params.units;
  const R invalid = *order.has_invalid ? R(NAN) : R(0);
  constexpr int stage_size = (class_warps - 1) * warp_threads * width;
  // Two, in turn, so that one barrier a class is enough.
  auto* const stages = static_shared<ClassStages, CompensatedSum<R>, 2 * stage_size>();
  auto* stage = stages;

  const int64_t first_class = int64_t(blockIdx.x / tiles) * task.block_classes;
  const int64_t end_class = min(first_class + task.block_classes, params.labels.num_classes);
  for (int64_t k = first_class; k < end_class; ++k) {
    const int64_t count = order.counts[k], end = order.ends[k];
    R* const means = static_cast<R*>(params.means) + k * params.units + unit;
    R values[width];
#pragma unroll
    for (int c = 0; c < width; ++c) values[c] = invalid;
    if (count == 0) {
      // Warps in turn: there is nothing to wait for.
      if (has_units && warp == int(k % class_warps)) store_means<width>(means, values);
      continue;
    }

    CompensatedSum<R> sums[width] = {};
    if (has_units) {
      add_rows(static_cast<const T*>(params.x) + unit, params.row_stride, order.samples,
               end - count + warp, end, R(order.scale), sums);
    }
    if (warp > 0) {
#pragma unroll
      for (int c = 0; c < width; ++c) stage[((warp - 1) * width + c) * warpSize + lane] = sums[c];
    }
    __syncthreads();
    if (warp == 0 && has_units) {
#pragma unroll
      for (int c = 0; c < width; ++c) {
        for (int w = 0; w < class_warps - 1; ++w) {
          sums[c].add(stage[(w * width + c) * warpSize + lane]);
        }
        values[c] += sums[c].value() / (R(count) * R(order.scale));
      }
      store_means<width>(means, values);
    }
    stage = stage == stages ? stages + stage_size : stages;
  }
}

// -------------------------------------------------------------------------------------- gradient

// A block takes a few samples and a tile of units: a pack of units a lane.
struct ClassMeansBackwardTask {
  ClassMeansBackwardParams params;
  int lanes;  // across units, a power of two
};

template <typename T, int width>
__global__ __launch_bounds__(block_threads) void class_means_backward_kernel(
    const __grid_constant__ ClassMeansBackwardTask task) {
  using R = Result<T>;
  const auto& params = task.params;
  const unsigned tiles = unsigned(divide_up(params.units, task.lanes * width));
  const int64_t groups = block_threads / task.lanes;
  const int64_t unit =
      (int64_t(blockIdx.x % tiles) * task.lanes + int(threadIdx.x) % task.lanes) * width;
  if (unit >= params.units) return;
  const int64_t first =
      int64_t(blockIdx.x / tiles) * groups * loads_in_flight + int(threadIdx.x) / task.lanes;
  for (int j = 0; j < loads_in_flight; ++j) {
    const int64_t sample = first + j * groups;
    if (sample >= params.labels.samples) return;
    const int64_t label = class_of(params.labels, sample);
    const R fill = label == invalid_class ? R(NAN) : R(0);
    const R scale = label >= 0 ? R(1) / R(params.counts[label]) : R(0);
    const R* grad = static_cast<const R*>(params.grad) + label * params.units + unit;
    Pack<T, width> pack;
#pragma unroll
    for (int c = 0; c < width; ++c) {
      pack.values[c] = narrow<T>(label >= 0 ? grad[c] * scale : fill);
    }
    store(static_cast<T*>(params.grad_x) + sample * params.units + unit, pack);
  }
}

}  // namespace

void launch_class_order(const Labels& labels, const ClassOrder& order, cudaStream_t stream) {
  launch(&class_order_kernel, 1, block_threads, stream, ClassOrderTask{labels, order});
}

void launch_class_means(const ClassMeansParams& params, const ClassOrder& order,
                        cudaStream_t stream) {
  const int64_t size = element_size(params.dtype);
  const bool vectors = vectors_align((params.units | params.row_stride) * size, params.x);
  for_dtype(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int width = vectors ? vector_size<T> : 1;
    const auto kernel =
        vectors ? &class_means_kernel<T, vector_size<T>> : &class_means_kernel<T, 1>;
    // So many blocks that they fill a GPU several times over, but not one for each of many classes,
    // most of which have no samples then.
    constexpr int64_t enough_blocks = 1 << 15;
    const int64_t tiles = divide_up(params.units, warp_threads * width);
    const int64_t classes = params.labels.num_classes;
    const int64_t block_classes = std::max<int64_t>(1, classes * tiles / enough_blocks);
    launch(kernel, divide_up(classes, block_classes) * tiles, class_threads, stream,
           ClassMeansTask{params, order, block_classes});
  });
}

void launch_class_means_backward(const ClassMeansBackwardParams& params, cudaStream_t stream) {
  const bool vectors = vectors_align(params.units * element_size(params.dtype), params.grad_x);
  for_dtype(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int width = vectors ? vector_size<T> : 1;
    ClassMeansBackwardTask task{params, 1};
    while (task.lanes < block_threads && task.lanes * width < params.units) task.lanes *= 2;
    const int64_t samples_of_block = block_threads / task.lanes * loads_in_flight;
    const auto kernel = vectors ? &class_means_backward_kernel<T, vector_size<T>>
                                : &class_means_backward_kernel<T, 1>;
    launch(kernel,
           divide_up(params.units, task.lanes * width) *
               divide_up(params.labels.samples, samples_of_block),
           block_threads, stream, task);
  });
}

}  // namespace selkern::cuda
