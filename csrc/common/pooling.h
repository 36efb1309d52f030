#pragma once

#include "common/dtype.h"
#include "common/map_layout.h"

// What the operators of this family ask of a device's kernels.
namespace selkern {

struct SpatialMeanParams {
  DType dtype;         // of x and y
  const void* x;       // [samples, units, positions], laid out as x_layout
  MapLayout x_layout;  //
  void* y;             // relu(x), laid out as y_layout; null: only the mean, of x itself
  MapLayout y_layout;  // of the same kind, planar or channels-last, as x_layout
  void* mean;          // [samples, units] contiguous, float64 for float64 x, otherwise float32
};

// grad_x = (y <= 0 ? 0 : grad_y + grad_mean / positions)
struct ReluWithMeanBackwardParams {
  DType dtype;               // of grad_y, y and grad_x
  const void* grad_y;        // [samples, units, positions], laid out as grad_y_layout, or null
  MapLayout grad_y_layout;   // of the same kind as layout
  const void* grad_mean;     // [samples, units], float64 for float64 y, else float32, or null
  int64_t grad_mean_stride;  // elements between samples; units are adjacent
  const void* y;             // [samples, units, positions], laid out as layout, dense
  void* grad_x;              // the same
  MapLayout layout;
};

}  // namespace selkern
