#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "tensors.h"

namespace selkern::cpu {

// Class of each sample, -1 where the label is ignore_index. Throws std::invalid_argument naming the
// first label outside [0, num_classes) and its row.
std::vector<int64_t> read_classes(const Tensor& labels, int64_t samples, int64_t num_classes,
                                  int64_t ignore_index);

// Samples in the order of their classes, by a stable counting sort.
class SortedSamples {
 public:
  // Writes the number of samples of each class to counts [num_classes].
  SortedSamples(const std::vector<int64_t>& classes, int64_t num_classes, int64_t* counts);

  ClassOrder order() const;

 private:
  std::vector<int64_t> samples_;
  std::vector<int64_t> classes_;
  std::vector<int64_t> starts_;
};

}  // namespace selkern::cpu
