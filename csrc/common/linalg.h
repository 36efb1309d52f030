#pragma once

#include <cstdint>

#include "common/dtype.h"

// What the operators of this family ask of a device's kernels.
namespace selkern {

// v^T A v / v^T v of each vector v.
struct RayleighQuotientParams {
  DType dtype;           // of everything, float32 or float64
  const void* matrices;  // [batch, size, size] contiguous, symmetric
  const void* vectors;   // [batch, size, size] contiguous, in columns
  int64_t batch;
  int64_t size;
  void* quotients;  // [batch, size] contiguous
};

struct EigensolverParams {
  DType dtype;           // of everything, float32 or float64
  const void* matrices;  // [batch, size, size] contiguous; only the lower triangle is read
  int64_t batch;
  int64_t size;
  void* eigenvalues;   // [batch, size] contiguous, ascending
  void* eigenvectors;  // [batch, size, size] contiguous, in columns; null: not wanted
};

}  // namespace selkern
