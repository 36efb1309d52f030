#include "pooling_ops.h"

#include "cuda/device.h"
#include "cuda/pooling.h"
#include "cuda/register.h"

namespace selkern::cuda {
namespace {

// Room for the shares of the means, where blocks share maps.
std::optional<Tensor> shares_of(const MapPlan& plan, const Tensor& x) {
  if (plan.splits == 1) return std::nullopt;
  return empty({plan.splits, plan.samples * plan.units}, result_type(x.scalar_type()), x);
}

struct Cuda {
  static void reduce_maps(const SpatialMeanParams& params, const Tensor& x) {
    const DeviceScope scope(x);
    const MapPlan plan = plan_of(params, true);
    const auto shares = shares_of(plan, x);
    const auto launch = params.y == nullptr ? &launch_spatial_mean : &launch_relu_with_mean;
    launch(params, plan, shares ? shares->mutable_data_ptr() : nullptr, scope.stream());
  }

  static void relu_with_mean_backward(const ReluWithMeanBackwardParams& params, const Tensor& y) {
    const DeviceScope scope(y);
    launch_relu_with_mean_backward(params, scope.stream());
  }
};

}  // namespace

void register_pooling_operators(torch::stable::detail::StableLibrary& m) {
  register_pooling<Cuda>(m);
}

}  // namespace selkern::cuda
