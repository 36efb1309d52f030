#include "cpu/selectivity_class_order.h"

#include <algorithm>

namespace selkern::cpu {

SortedSamples::SortedSamples(const std::vector<int64_t>& classes, int64_t num_classes,
                             int64_t* counts) {
  std::fill_n(counts, num_classes, 0);
  for (const int64_t label : classes) {
    if (label >= 0) ++counts[label];
  }
  std::vector<int64_t> next(num_classes);
  int64_t kept = 0;
  for (int64_t label = 0; label < num_classes; ++label) {
    next[label] = kept;
    if (counts[label] == 0) continue;
    classes_.push_back(label);
    starts_.push_back(kept);
    kept += counts[label];
  }
  starts_.push_back(kept);
  samples_.resize(kept);
  for (size_t n = 0; n < classes.size(); ++n) {
    if (classes[n] >= 0) samples_[next[classes[n]]++] = n;
  }
}

SampleOrder SortedSamples::order() const {
  return {samples_.data(), classes_.data(), starts_.data(), int64_t(classes_.size())};
}

}  // namespace selkern::cpu
