#include "pooling_ops.h"

#include "cpu/capability.h"
#include "cpu/parallel.h"

namespace selkern::cpu {
namespace {

struct Cpu {
  static void reduce_maps(const SpatialMeanParams& params, const Tensor&) {
    parallel_items(kernels().spatial_mean, params, map_items(params.x_layout),
                   map_item_cost(params.x_layout));
  }

  static void relu_with_mean_backward(const ReluWithMeanBackwardParams& params, const Tensor&) {
    parallel_items(kernels().relu_with_mean_backward, params, map_items(params.layout),
                   map_item_cost(params.layout));
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(selkern, CPU, m) { register_pooling<Cpu>(m); }

}  // namespace selkern::cpu
