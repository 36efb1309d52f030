#include "cuda/pooling.h"

#include <algorithm>

#include "cuda/launch.cuh"
#include "cuda/layer_search.cuh"
#include "cuda/pooling_reduction.cuh"
#include "cuda/pooling_relu_backward.cuh"
#include "cuda/selectivity_class_order.cuh"

namespace selkern::cuda {
namespace {

template <typename Function>
void for_dtype_and_kind(DType dtype, MapKind kind, Function function) {
  for_dtype(dtype,
            [&](auto type) { for_map_kind(kind, [&](auto maps) { function(type, maps); }); });
}

// ------------------------------------------------------------------------------ means of layers

template <int capacity>
struct LayersParams {
  Labels labels;     // sorted by block 0, if sort
  ClassOrder order;  //
  bool sort;
  int layers;
  int64_t first_blocks[capacity];  // of each layer
  MapReduction tasks[capacity];
};

template <typename T>
__device__ __forceinline__ void reduce(const MapReduction& task, unsigned block) {
  const MapReducer<T, false> reducer(task, block);
  for_map_kind(task.plan.kind, [&](auto kind) { reducer.run(kind); });
}

// Widest is double where a layer is float64, so that only then code for float64 is there.
template <typename Widest, int capacity>
__global__ __launch_bounds__(block_threads, 3) void spatial_means_kernel(
    const __grid_constant__ LayersParams<capacity> params) {
  unsigned block = blockIdx.x;
  if (params.sort) {
    if (block == 0) return ClassSorter(params.labels, params.order).run();
    --block;
  }
  const int layer =
      last_not_after(params.layers, [&](int i) { return params.first_blocks[i]; }, block);
  block -= unsigned(params.first_blocks[layer]);
  const MapReduction& task = params.tasks[layer];
  switch (task.dtype) {
    case DType::float16:
      return reduce<__half>(task, block);
    case DType::bfloat16:
      return reduce<__nv_bfloat16>(task, block);
    case DType::float32:
      return reduce<float>(task, block);
    case DType::float64:
      if constexpr (std::is_same_v<Widest, double>) reduce<double>(task, block);
  }
}

MapReduction reduction_of(const SpatialMeanParams& params, const MapPlan& plan, void* means) {
  MapReduction task{};
  task.plan = plan;
  task.dtype = params.dtype;
  task.x = params.x;
  task.x_strides = strides_of(params.x_layout);
  task.y = params.y;
  task.y_strides = strides_of(params.y_layout);
  task.means = means;
  task.scale = sum_scale(plan.positions);
  return task;
}

template <int capacity>
void launch_layers(const SpatialMeanParams* layers, const MapPlan* plans, void* const* means,
                   int count, const Labels* labels, const ClassOrder* order, cudaStream_t stream) {
  LayersParams<capacity> params{};
  params.sort = labels != nullptr;
  if (params.sort) {
    params.labels = *labels;
    params.order = *order;
  }
  params.layers = count;
  int64_t blocks = 0;
  bool has_float64 = false;
  for (int l = 0; l < count; ++l) {
    params.first_blocks[l] = blocks;
    params.tasks[l] = reduction_of(layers[l], plans[l], means[l]);
    blocks += plans[l].blocks();
    has_float64 = has_float64 || layers[l].dtype == DType::float64;
  }
  const auto kernel = has_float64 ? &spatial_means_kernel<double, capacity>
                                  : &spatial_means_kernel<float, capacity>;
  launch(kernel, blocks + params.sort, block_threads, stream, params);
}

// ------------------------------------------------------------------------------ shares of a mean

struct AddSharesParams {
  const void* shares;  // [splits, count]
  int64_t splits;
  int64_t count;
  void* means;  // [count]
};

template <typename R>
__global__ __launch_bounds__(block_threads) void add_shares_kernel(
    const __grid_constant__ AddSharesParams params) {
  const int64_t i = int64_t(blockIdx.x) * block_threads + threadIdx.x;
  if (i >= params.count) return;
  auto sum = CompensatedSum<R>{};
  for (int64_t s = 0; s < params.splits; ++s) {
    sum.add(static_cast<const R*>(params.shares)[s * params.count + i]);
  }
  static_cast<R*>(params.means)[i] = sum.value();
}

// Where blocks share maps: their shares, once added up, are the means.
void add_shares(const SpatialMeanParams& params, const MapPlan& plan, const void* shares,
                cudaStream_t stream) {
  if (plan.splits == 1) return;
  const int64_t count = plan.samples * plan.units;
  const AddSharesParams sums{shares, plan.splits, count, params.mean};
  const auto kernel =
      params.dtype == DType::float64 ? &add_shares_kernel<double> : &add_shares_kernel<float>;
  launch(kernel, divide_up(count, block_threads), block_threads, stream, sums);
}

// ------------------------------------------------------------------------------ one set of maps

// Of a multiprocessor. Named in all launch bounds, because the compiler that may choose saves
// registers by spilling them or by waiting for one load before it asks for the next.
template <typename Kind, bool with_relu>
constexpr int resident_blocks =
    std::is_same_v<Kind, LongRows> || (std::is_same_v<Kind, RowGroups> && !with_relu) ? 5 : 4;

template <typename T, typename Kind>
__global__
__launch_bounds__(block_threads, (resident_blocks<Kind, false>)) void spatial_mean_kernel(
    const __grid_constant__ MapReduction task) {
  MapReducer<T, false>(task, blockIdx.x).run(Kind{});
}

template <typename T, typename Kind>
__global__
__launch_bounds__(block_threads, (resident_blocks<Kind, true>)) void relu_with_mean_kernel(
    const __grid_constant__ MapReduction task) {
  MapReducer<T, true>(task, blockIdx.x).run(Kind{});
}

template <typename T, typename Kind>
__global__ __launch_bounds__(block_threads, 4) void relu_with_mean_backward_kernel(
    const __grid_constant__ ReluBackward task) {
  ReluDifferentiator<T>(task, blockIdx.x).run(Kind{});
}

}  // namespace

MapPlan plan_of(const SpatialMeanParams& params, bool can_split) {
  return plan_maps({{params.x, params.x_layout}, {params.y, params.y_layout}},
                   element_size(params.dtype), can_split);
}

void launch_spatial_mean(const SpatialMeanParams& params, const MapPlan& plan, void* shares,
                         cudaStream_t stream) {
  const auto task = reduction_of(params, plan, plan.splits == 1 ? params.mean : shares);
  for_dtype_and_kind(params.dtype, plan.kind, [&](auto type, auto kind) {
    launch(&spatial_mean_kernel<typename decltype(type)::type, decltype(kind)>, plan.blocks(),
           block_threads, stream, task);
  });
  add_shares(params, plan, shares, stream);
}

void launch_relu_with_mean(const SpatialMeanParams& params, const MapPlan& plan, void* shares,
                           cudaStream_t stream) {
  const auto task = reduction_of(params, plan, plan.splits == 1 ? params.mean : shares);
  for_dtype_and_kind(params.dtype, plan.kind, [&](auto type, auto kind) {
    launch(&relu_with_mean_kernel<typename decltype(type)::type, decltype(kind)>, plan.blocks(),
           block_threads, stream, task);
  });
  add_shares(params, plan, shares, stream);
}

void launch_relu_with_mean_backward(const ReluWithMeanBackwardParams& params, cudaStream_t stream) {
  const int size = element_size(params.dtype);
  ReluBackward task{};
  task.plan = plan_maps({{params.y, params.layout},
                         {params.grad_x, params.layout},
                         {params.grad_y, params.grad_y_layout}},
                        size, true);
  task.y = params.y;
  task.grad_x = params.grad_x;
  task.strides = strides_of(params.layout);
  task.grad_y = params.grad_y;
  task.grad_y_strides = strides_of(params.grad_y_layout);
  task.grad_mean = params.grad_mean;
  task.grad_mean_stride = params.grad_mean_stride;
  task.units = params.layout.units;
  for_dtype_and_kind(params.dtype, task.plan.kind, [&](auto type, auto kind) {
    launch(&relu_with_mean_backward_kernel<typename decltype(type)::type, decltype(kind)>,
           task.plan.blocks(), block_threads, stream, task);
  });
}

void launch_spatial_means_and_class_order(const std::vector<SpatialMeanParams>& layers,
                                          const Labels& labels, const ClassOrder& order,
                                          cudaStream_t stream) {
  // As many as fit the parameters of one launch.
  constexpr int few = 24, many = 192;
  std::vector<MapPlan> plans;
  std::vector<void*> means;
  for (const SpatialMeanParams& layer : layers) {
    plans.push_back(plan_of(layer, false));
    means.push_back(layer.mean);
  }
  size_t first = 0;
  do {
    const int count = int(std::min<size_t>(layers.size() - first, many));
    const auto launch_some = count <= few ? &launch_layers<few> : &launch_layers<many>;
    launch_some(layers.data() + first, plans.data() + first, means.data() + first, count,
                first == 0 ? &labels : nullptr, &order, stream);
    first += count;
  } while (first < layers.size());
}

}  // namespace selkern::cuda
