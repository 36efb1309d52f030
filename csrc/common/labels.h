#pragma once

#include <cstdint>
#include <vector>

namespace selkern {

struct Labels {
  const void* data;  // [samples] int64 or int32, adjacent
  bool is_int64;
  int64_t samples;
  int64_t num_classes;
  int64_t ignore_index;
};

// Class of each sample, -1 where the label is ignore_index, of labels in the CPU's memory. Raises a
// ValueError that names the first label outside [0, num_classes) and its row.
std::vector<int64_t> read_classes(const Labels& labels);

}  // namespace selkern
