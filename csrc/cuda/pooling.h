// Launches of the pooling kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "common/pooling.h"
#include "cuda/pooling_plan.h"
#include "cuda/selectivity_class_order.h"

namespace selkern::cuda {

// How the maps of one call are dealt out; where blocks share a map, `shares` is the workspace for
// splits * samples * units shares of the means.
MapPlan plan_of(const SpatialMeanParams& params, bool can_split);

void launch_spatial_mean(const SpatialMeanParams& params, const MapPlan& plan, void* shares,
                         cudaStream_t stream);
void launch_relu_with_mean(const SpatialMeanParams& params, const MapPlan& plan, void* shares,
                           cudaStream_t stream);
void launch_relu_with_mean_backward(const ReluWithMeanBackwardParams& params, cudaStream_t stream);

// Means of all layers and, beside them, the order of the classes, in one launch.
void launch_spatial_means_and_class_order(const std::vector<SpatialMeanParams>& layers,
                                          const Labels& labels, const ClassOrder& order,
                                          cudaStream_t stream);

}  // namespace selkern::cuda
