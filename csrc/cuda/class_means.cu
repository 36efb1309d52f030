#include <cmath>

#include "cuda/class_order.cuh"
#include "cuda/launch.cuh"
#include "cuda/numeric.cuh"
#include "cuda/selectivity.h"
#include "cuda/vectors.cuh"

namespace selkern::cuda {
namespace {

struct ClassOrderParams {
  Labels labels;
  ClassOrder order;
};

__global__ __launch_bounds__(block_threads) void class_order_kernel(
    const __grid_constant__ ClassOrderParams params) {
  ClassSorter(params.labels, params.order).run();
}

// ----------------------------------------------------------------------------------------- means

constexpr int class_warps = 4;
constexpr int class_threads = class_warps * warp_threads;

struct ClassSums;

// A block takes one class and a tile of units: a pack of units a lane, every fourth sample a warp.
template <typename T, int width>
__global__ __launch_bounds__(class_threads) void class_means_kernel(
    const __grid_constant__ ClassMeansParams params) {
  using R = Result<T>;
  const unsigned tiles = unsigned(divide_up(params.units, warp_threads * width));
  const int64_t k = blockIdx.x / tiles;
  const int lane = int(threadIdx.x) % warpSize, warp = int(threadIdx.x) / warpSize;
  const int64_t unit = (int64_t(blockIdx.x % tiles) * warpSize + lane) * width;
  const bool has_units = unit < params.units;
  const int64_t count = params.order.counts[k], end = params.order.ends[k];

  const R scale = params.order.scale;
  CompensatedSum<R> sums[width] = {};
  if (has_units) {
    const T* x = static_cast<const T*>(params.x) + unit;
    for (int64_t i = end - count + warp; i < end; i += class_warps * loads_in_flight) {
      Pack<T, width> packs[loads_in_flight];
#pragma unroll
      for (int j = 0; j < loads_in_flight; ++j) {
        const int64_t entry = i + j * class_warps;
        if (entry < end)
          packs[j] = load<width>(x + params.order.samples[entry] * params.row_stride);
      }
#pragma unroll
      for (int j = 0; j < loads_in_flight; ++j) {
        if (i + j * class_warps >= end) continue;
#pragma unroll
        for (int c = 0; c < width; ++c) sums[c].add(widen(packs[j].values[c]) * scale);
      }
    }
  }

  auto* stage =
      static_shared<ClassSums, CompensatedSum<R>, (class_warps - 1) * warp_threads * width>();
  if (warp > 0) {
#pragma unroll
    for (int c = 0; c < width; ++c) stage[((warp - 1) * width + c) * warpSize + lane] = sums[c];
  }
  __syncthreads();
  if (warp > 0 || !has_units) return;
  R* means = static_cast<R*>(params.means) + k * params.units + unit;
#pragma unroll
  for (int c = 0; c < width; ++c) {
    for (int w = 0; w < class_warps - 1; ++w) sums[c].add(stage[(w * width + c) * warpSize + lane]);
    R mean = count > 0 ? sums[c].value() / (R(count) * scale) : R(0);
    if (*params.order.has_invalid) mean = R(NAN);
    means[c] = mean;
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

bool is_aligned(const void* data, int64_t bytes) {
  return (reinterpret_cast<intptr_t>(data) | bytes) % vector_bytes == 0;
}

}  // namespace

void launch_class_order(const Labels& labels, const ClassOrder& order, cudaStream_t stream) {
  launch(&class_order_kernel, 1, block_threads, stream, ClassOrderParams{labels, order});
}

void launch_class_means(const ClassMeansParams& params, cudaStream_t stream) {
  const int64_t size = element_size(params.dtype);
  const bool vectors = is_aligned(params.x, (params.units | params.row_stride) * size);
  for_dtype(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int width = vectors ? vector_size<T> : 1;
    const auto kernel =
        vectors ? &class_means_kernel<T, vector_size<T>> : &class_means_kernel<T, 1>;
    launch(kernel, params.num_classes * divide_up(params.units, warp_threads * width),
           class_threads, stream, params);
  });
}

void launch_class_means_backward(const ClassMeansBackwardParams& params, cudaStream_t stream) {
  const bool vectors = is_aligned(params.grad_x, params.units * element_size(params.dtype));
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
