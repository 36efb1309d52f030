// Launches of the selectivity kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "common/dtype.h"
#include "cuda/selectivity_class_order.h"

namespace selkern::cuda {

void launch_class_order(const Labels& labels, const ClassOrder& order, cudaStream_t stream);

struct ClassMeansParams {
  DType dtype;         // of x
  const void* x;       // [samples, units], units adjacent
  int64_t row_stride;  // elements between samples
  int64_t units;
  int64_t num_classes;
  ClassOrder order;
  void* means;  // [num_classes, units] contiguous, float64 for float64 x, otherwise float32
};

void launch_class_means(const ClassMeansParams& params, cudaStream_t stream);

// grad_x[n] = grad[label n] / count[label n]
struct ClassMeansBackwardParams {
  const void* grad;  // [num_classes, units] contiguous, float64 for float64 grad_x, else float32
  Labels labels;
  const int64_t* counts;  // [num_classes]
  int64_t units;
  DType dtype;   // of grad_x
  void* grad_x;  // [samples, units] contiguous
};

void launch_class_means_backward(const ClassMeansBackwardParams& params, cudaStream_t stream);

struct LayerMeansView {
  DType dtype;
  const void* means;   // [samples, units], units adjacent: activations averaged over positions
  int64_t row_stride;  // elements between samples
  int64_t units;
};

// Entries of all layers' units stand side by side; results are float64 if result_dtype says so,
// otherwise float32.
struct SelectivityResults {
  DType result_dtype;
  void* loss;       // scalar
  void* layers;     // [layers] mean index of each
  void* index;      // [units] selectivity index
  void* maximum;    // [units] largest class mean
  void* rest;       // [units] mean of the other classes' means
  int64_t* winner;  // [units] class of the largest mean, the lowest of equals
};

void launch_selectivity(const std::vector<LayerMeansView>& layers, const ClassOrder& order,
                        double eps, const SelectivityResults& results, cudaStream_t stream);

// Gradients and saved results have the result's dtype: float64 for float64 grad_sums, else float32.
struct SelectivityGradients {
  const void* loss;     // scalar, or null
  const void* index;    // [units], or null
  const void* maximum;  // [units], or null
  const void* rest;     // [units], or null
};

struct SelectivityBackwardProblem {
  SelectivityGradients gradients;
  const void* maximum;    // [units]
  const void* rest;       // [units]
  const int64_t* winner;  // [units]
  const int64_t* counts;  // [num_classes]
  Labels labels;
  double eps;
  int64_t units;    // of all layers
  DType dtype;      // of grad_sums
  void* grad_sums;  // [samples, units] contiguous: gradient of the sums over positions
};

struct LayerExtent {
  int64_t units;
  int64_t positions;
};

void launch_selectivity_backward(const SelectivityBackwardProblem& problem,
                                 const std::vector<LayerExtent>& layers, cudaStream_t stream);

}  // namespace selkern::cuda
