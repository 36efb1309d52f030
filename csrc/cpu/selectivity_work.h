// What the kernels share that take samples class by class.
#pragma once

#include <cstdint>

#include "common/divide_up.h"
#include "common/selectivity.h"

namespace selkern::cpu {

// Samples sorted by class, stably.
struct SampleOrder {
  const int64_t* samples;  // [kept samples] row indices, class by class
  const int64_t* classes;  // [present] class indices, ascending
  const int64_t* starts;   // [present + 1] first entry of each class in samples
  int64_t present;         // number of classes that have samples
};

struct ClassMeansWork {
  ClassMeansParams params;
  SampleOrder order;
};

struct ClassMeansBackwardWork {
  ClassMeansBackwardParams params;
  const int64_t* classes;  // [samples] class of each sample, -1 where ignored
};

// Of one layer.
struct SelectivityWork {
  static constexpr int64_t block_units = 256;

  LayerMeansView layer;
  int64_t first_unit;  // among the units of all layers
  SampleOrder order;
  double eps;
  SelectivityResults results;

  int64_t blocks() const { return divide_up(layer.units, block_units); }
};

struct SelectivityBackwardWork {
  SelectivityBackwardParams params;
  const int64_t* classes;      // [samples] class of each sample, -1 where ignored
  const double* grad_maximum;  // [units] of the sum over positions of the largest class mean
  const double* grad_rest;     // [units] of that of every other class mean
};

}  // namespace selkern::cpu
