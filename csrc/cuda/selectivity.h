// Launches of the selectivity kernels.
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "common/selectivity.h"
#include "cuda/selectivity_class_order.h"

namespace selkern::cuda {

void launch_class_order(const Labels& labels, const ClassOrder& order, cudaStream_t stream);

void launch_class_means(const ClassMeansParams& params, const ClassOrder& order,
                        cudaStream_t stream);

void launch_class_means_backward(const ClassMeansBackwardParams& params, cudaStream_t stream);

void launch_selectivity(const std::vector<LayerMeansView>& layers, const ClassOrder& order,
                        double eps, const SelectivityResults& results, cudaStream_t stream);

void launch_selectivity_backward(const SelectivityBackwardParams& params,
                                 const std::vector<LayerExtent>& layers, cudaStream_t stream);

}  // namespace selkern::cuda
