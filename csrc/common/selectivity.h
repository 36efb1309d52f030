#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/labels.h"

// What the operators of this family ask of a device's kernels.
namespace selkern {

struct ClassMeansParams {
  DType dtype;         // of x
  const void* x;       // [samples, units], units adjacent
  int64_t row_stride;  // elements between samples
  int64_t units;
  Labels labels;
  void* means;      // [num_classes, units] contiguous, float64 for float64 x, otherwise float32
  int64_t* counts;  // [num_classes] samples of each class
};

// grad_x[n] = grad[label n] / count[label n]
struct ClassMeansBackwardParams {
  const void* grad;  // [num_classes, units] contiguous, float64 for float64 grad_x, else float32
  Labels labels;
  const int64_t* counts;  // [num_classes]
  int64_t units;
  DType dtype;   // of grad_x
  void* grad_x;  // [samples, units] contiguous
};

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

struct SelectivityParams {
  Labels labels;
  double eps;
  int64_t* counts;  // [num_classes] samples of each class
  SelectivityResults results;
};

// Gradients and saved results have the result's dtype: float64 for float64 grad_sums, else float32.
struct SelectivityGradients {
  const void* loss;     // scalar, or null
  const void* index;    // [units], or null
  const void* maximum;  // [units], or null
  const void* rest;     // [units], or null
};

struct SelectivityBackwardParams {
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

}  // namespace selkern
