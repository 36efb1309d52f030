#include "common/labels.h"

#include <sstream>

#include "common/value_error.h"

namespace selkern {
namespace {

[[noreturn]] void refuse_label(int64_t label, int64_t row, const Labels& labels) {
  std::ostringstream message;
  message << "labels must be in [0, " << labels.num_classes << ") or equal to ignore_index ("
          << labels.ignore_index << "), got " << label << " at row " << row;
  raise_value_error(message.str());
}

template <typename Label>
std::vector<int64_t> read(const Labels& labels) {
  std::vector<int64_t> classes(labels.samples);
  for (int64_t n = 0; n < labels.samples; ++n) {
    const int64_t label = static_cast<const Label*>(labels.data)[n];
    if (label == labels.ignore_index) {
      classes[n] = -1;
    } else if (label >= 0 && label < labels.num_classes) {
      classes[n] = label;
    } else {
      refuse_label(label, n, labels);
    }
  }
  return classes;
}

}  // namespace

std::vector<int64_t> read_classes(const Labels& labels) {
  return labels.is_int64 ? read<int64_t>(labels) : read<int32_t>(labels);
}

}  // namespace selkern
