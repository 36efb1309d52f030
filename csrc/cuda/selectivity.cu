#include "cuda/selectivity.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/selectivity_index.h"
#include "cuda/last_block.cuh"
#include "cuda/launch.cuh"
#include "cuda/layer_search.cuh"
#include "cuda/numeric.cuh"
#include "cuda/selectivity_class_order.cuh"
#include "cuda/selectivity_class_runs.cuh"

namespace selkern::cuda {
namespace {

// Finite in any dtype.
template <typename R>
R narrowed_eps(double eps) {
  return R(std::min(eps, double(std::numeric_limits<R>::max())));
}

// --------------------------------------------------------------------------------------- forward

struct SelectivityLayer {
  LayerMeansView view;
  int64_t first_unit;   // among the units of all layers
  int64_t first_block;  // of this launch
};

template <typename Out, int capacity>
struct SelectivityTask {
  ClassOrder order;
  Out eps;
  SelectivityResults results;
  int64_t first_layer;  // of this launch, among all layers
  int64_t all_layers;
  int layers;
  SelectivityLayer layer[capacity];
};

template <typename Out>
__device__ __forceinline__ void store_index(const SelectivityResults& results, int64_t unit,
                                            const ClassExtremes<Out>& extremes, bool has_invalid,
                                            Out eps, Out scale) {
  const bool has_two_classes = extremes.present > 1;
  const Out other_classes = has_two_classes ? Out(extremes.present - 1) : Out(1);
  Out maximum = extremes.maximum, rest = extremes.others.value() / (other_classes * scale);
  if (has_invalid) maximum = rest = Out(NAN);
  static_cast<Out*>(results.index)[unit] =
      has_invalid ? Out(NAN) : selectivity_index(maximum, rest, has_two_classes, eps);
  static_cast<Out*>(results.maximum)[unit] = maximum;
  static_cast<Out*>(results.rest)[unit] = rest;
  results.winner[unit] = extremes.winner;
}

// Mean of values[0, count), by one warp; in its first lane.
template <typename Out>
__device__ __forceinline__ Out warp_mean(const Out* values, int64_t count) {
  auto sum = CompensatedSum<Out>{};
  for (int64_t i = threadIdx.x % warpSize; i < count; i += warpSize) sum.add(__ldcg(values + i));
  add_lanes(sum, warpSize);
  return sum.value() / Out(count);
}

template <typename Out, int capacity>
__device__ __forceinline__ void mean_over_layers(const SelectivityTask<Out, capacity>& task) {
  const int warp = int(threadIdx.x) / warpSize;
  Out* layers = static_cast<Out*>(task.results.layers);
  for (int l = warp; l < task.layers; l += block_threads / warpSize) {
    const SelectivityLayer& layer = task.layer[l];
    const Out* index = static_cast<const Out*>(task.results.index) + layer.first_unit;
    const Out mean = warp_mean(index, layer.view.units);
    if (threadIdx.x % warpSize == 0) layers[task.first_layer + l] = mean;
  }
  if (task.first_layer + task.layers < task.all_layers) return;
  __syncthreads();
  if (warp == 0) {
    const Out loss = warp_mean(layers, task.all_layers);
    if (threadIdx.x == 0) *static_cast<Out*>(task.results.loss) = loss;
  }
}

// A block takes a tile of 32 units of one layer. Out is double where a layer is float64.
template <typename Out, int capacity>
__global__ __launch_bounds__(block_threads) void selectivity_kernel(
    const __grid_constant__ SelectivityTask<Out, capacity> task) {
  const int64_t block = blockIdx.x;
  const int l =
      last_not_after(task.layers, [&](int i) { return task.layer[i].first_block; }, block);
  const SelectivityLayer& layer = task.layer[l];
  const int64_t unit = (block - layer.first_block) * warpSize + threadIdx.x % warpSize;
  const LayerMeansView& view = layer.view;

  ClassExtremes<Out> extremes{};
  switch (view.dtype) {
    case DType::float16:
      extremes = extremes_of_unit<Out, __half>(view, unit, task.order);
      break;
    case DType::bfloat16:
      extremes = extremes_of_unit<Out, __nv_bfloat16>(view, unit, task.order);
      break;
    case DType::float32:
      extremes = extremes_of_unit<Out, float>(view, unit, task.order);
      break;
    case DType::float64:
      if constexpr (std::is_same_v<Out, double>) {
        extremes = extremes_of_unit<Out, double>(view, unit, task.order);
      }
      break;
  }
  if (threadIdx.x < warpSize && unit < view.units) {
    store_index(task.results, layer.first_unit + unit, extremes, *task.order.has_invalid != 0,
                task.eps, Out(task.order.scale));
  }
  struct IsLast;
  bool* const is_last = static_shared<IsLast, bool, 1>();
  if (is_last_block(task.order.blocks_done, gridDim.x, is_last)) mean_over_layers(task);
}

template <typename Out, int capacity>
void launch_layers(const std::vector<SelectivityLayer>& layers, size_t first, int count,
                   const ClassOrder& order, double eps, const SelectivityResults& results,
                   cudaStream_t stream) {
  SelectivityTask<Out, capacity> task{};
  task.order = order;
  task.eps = narrowed_eps<Out>(eps);
  task.results = results;
  task.first_layer = first;
  task.all_layers = layers.size();
  task.layers = count;
  int64_t blocks = 0;
  for (int l = 0; l < count; ++l) {
    task.layer[l] = layers[first + l];
    task.layer[l].first_block = blocks;
    blocks += divide_up(task.layer[l].view.units, warp_threads);
  }
  // Layers without units still have means, which are NaN.
  launch(&selectivity_kernel<Out, capacity>, std::max<int64_t>(1, blocks), block_threads, stream,
         task);
}

// -------------------------------------------------------------------------------------- backward

template <typename R, int capacity>
struct SelectivityBackwardTask {
  SelectivityBackwardParams params;
  R eps;
  int64_t all_layers;
  int layers;
  int64_t block_samples;
  int64_t end_unit;  // of this launch's layers, among all units
  int64_t first_unit[capacity];
  LayerExtent layer[capacity];
};

// Samples of a block: few, but so many that not every small block has to count the classes.
inline int64_t backward_samples(int64_t samples, int64_t tiles) {
  constexpr int64_t fewest = 8, enough_blocks = 1024;
  return std::max(fewest, divide_up(samples * tiles, enough_blocks));
}

template <typename R>
__device__ __forceinline__ R value_or_zero(const void* values, int64_t i) {
  return values ? static_cast<const R*>(values)[i] : R(0);
}

// Number of classes that have samples; the same in all threads.
__device__ __forceinline__ int64_t count_present(const int64_t* counts, int64_t num_classes) {
  int64_t present = 0, total;
  for (int64_t k = threadIdx.x; k < num_classes; k += block_threads) present += counts[k] > 0;
  sum_before(present, total);
  return total;
}

template <typename T, int capacity>
__global__ __launch_bounds__(block_threads) void selectivity_backward_kernel(
    const __grid_constant__ SelectivityBackwardTask<Result<T>, capacity> task) {
  using R = Result<T>;
  const SelectivityBackwardParams& params = task.params;
  const int64_t present = count_present(params.counts, params.labels.num_classes);
  const unsigned tiles = unsigned(divide_up(task.end_unit - task.first_unit[0], block_threads));
  const int64_t unit =
      task.first_unit[0] + int64_t(blockIdx.x % tiles) * block_threads + threadIdx.x;
  if (unit >= task.end_unit) return;
  const int l = last_not_after(task.layers, [&](int i) { return task.first_unit[i]; }, unit);

  const R of_layer =
      value_or_zero<R>(params.gradients.loss, 0) / (R(task.all_layers) * R(task.layer[l].units));
  const auto gradient = class_mean_gradient(
      value_or_zero<R>(params.gradients.index, unit) + of_layer,
      value_or_zero<R>(params.gradients.maximum, unit),
      value_or_zero<R>(params.gradients.rest, unit), static_cast<const R*>(params.maximum)[unit],
      static_cast<const R*>(params.rest)[unit], R(present), task.eps);
  const R positions = R(task.layer[l].positions);
  const int64_t winner = params.winner[unit];

  const int64_t first = int64_t(blockIdx.x / tiles) * task.block_samples;
  const int64_t end = min(first + task.block_samples, params.labels.samples);
  T* grad = static_cast<T*>(params.grad_sums) + unit;
  for (int64_t n = first; n < end; ++n) {
    const int64_t label = class_of(params.labels, n);
    R value = label == invalid_class ? R(NAN) : R(0);
    if (label >= 0) {
      const R of_mean = label == winner ? gradient.maximum : gradient.rest;
      value = of_mean / (positions * R(params.counts[label]));
    }
    grad[n * params.units] = narrow<T>(value);
  }
}

template <typename T, int capacity>
void launch_backward_layers(const SelectivityBackwardParams& params,
                            const std::vector<LayerExtent>& layers, size_t first, int count,
                            int64_t first_unit, cudaStream_t stream) {
  SelectivityBackwardTask<Result<T>, capacity> task{};
  task.params = params;
  task.eps = narrowed_eps<Result<T>>(params.eps);
  task.all_layers = layers.size();
  task.layers = count;
  task.end_unit = first_unit;
  for (int l = 0; l < count; ++l) {
    task.layer[l] = layers[first + l];
    task.first_unit[l] = task.end_unit;
    task.end_unit += layers[first + l].units;
  }
  const int64_t tiles = divide_up(task.end_unit - first_unit, block_threads);
  task.block_samples = backward_samples(params.labels.samples, tiles);
  const int64_t blocks = tiles * divide_up(params.labels.samples, task.block_samples);
  if (blocks == 0) return;
  launch(&selectivity_backward_kernel<T, capacity>, blocks, block_threads, stream, task);
}

}  // namespace

void launch_selectivity(const std::vector<LayerMeansView>& views, const ClassOrder& order,
                        double eps, const SelectivityResults& results, cudaStream_t stream) {
  std::vector<SelectivityLayer> layers;
  int64_t first_unit = 0;
  for (const LayerMeansView& view : views) {
    layers.push_back({view, first_unit, 0});
    first_unit += view.units;
  }
  // As many as fit the parameters of one launch.
  constexpr int few = 32, many = 672;
  for (size_t first = 0; first < layers.size(); first += many) {
    const int count = int(std::min<size_t>(layers.size() - first, many));
    const bool is_double = results.result_dtype == DType::float64;
    const auto launch_few = is_double ? &launch_layers<double, few> : &launch_layers<float, few>;
    const auto launch_many = is_double ? &launch_layers<double, many> : &launch_layers<float, many>;
    (count <= few ? launch_few : launch_many)(layers, first, count, order, eps, results, stream);
  }
}

void launch_selectivity_backward(const SelectivityBackwardParams& params,
                                 const std::vector<LayerExtent>& layers, cudaStream_t stream) {
  constexpr int few = 32, many = 1344;
  int64_t first_unit = 0;
  for (size_t first = 0; first < layers.size(); first += many) {
    const int count = int(std::min<size_t>(layers.size() - first, many));
    for_dtype(params.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const auto launch_some =
          count <= few ? &launch_backward_layers<T, few> : &launch_backward_layers<T, many>;
      launch_some(params, layers, first, count, first_unit, stream);
    });
    for (int l = 0; l < count; ++l) first_unit += layers[first + l].units;
  }
}

}  // namespace selkern::cuda
