#pragma once

#include <cstdint>
#include <vector>

#include "tensors.h"

namespace selkern {

// Class of each sample, -1 where the label is ignore_index. Raises a ValueError that names the
// first label outside [0, num_classes) and its row.
std::vector<int64_t> read_classes(const Tensor& labels, int64_t samples, int64_t num_classes,
                                  int64_t ignore_index);

}  // namespace selkern
