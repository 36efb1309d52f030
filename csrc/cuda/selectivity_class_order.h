#pragma once

#include <cstdint>

#include "common/labels.h"

namespace selkern::cuda {

// What stands for a label that is ignore_index, or neither that nor a class.
constexpr int64_t ignored_class = -1;
constexpr int64_t invalid_class = -2;

struct ClassOrder {
  float scale;            // sum_scale(samples): for sums over samples, and over class means
  int64_t* samples;       // [samples] row indices of those that take part, class by class
  int64_t* classes;       // [samples] the class of each
  int64_t* counts;        // [num_classes] samples of each class
  int64_t* ends;          // [num_classes] where each class ends in samples; until then a workspace
  int64_t* kept;          // number of samples that take part
  int* has_invalid;       // whether a label is neither a class nor ignore_index
  unsigned* blocks_done;  // set to 0 for the launch that follows
};

}  // namespace selkern::cuda
