#pragma once

#include <cstdint>
#include <vector>

#include "cpu/selectivity_work.h"

namespace selkern::cpu {

// Samples in the order of their classes, by a stable counting sort.
class SortedSamples {
 public:
  // Writes the number of samples of each class to counts [num_classes].
  SortedSamples(const std::vector<int64_t>& classes, int64_t num_classes, int64_t* counts);

  SampleOrder order() const;

 private:
  std::vector<int64_t> samples_;
  std::vector<int64_t> classes_;
  std::vector<int64_t> starts_;
};

}  // namespace selkern::cpu
