#include "common/labels.h"

#include "common/value_error.h"

namespace selkern {
namespace {

[[noreturn]] void refuse_label(int64_t label, int64_t row, int64_t num_classes,
                               int64_t ignore_index) {
  std::ostringstream message;
  message << "labels must be in [0, " << num_classes << ") or equal to ignore_index ("
          << ignore_index << "), got " << label << " at row " << row;
  raise_value_error(message.str());
}

template <typename Label>
void read(const Label* labels, int64_t num_classes, int64_t ignore_index,
          std::vector<int64_t>& classes) {
  for (size_t n = 0; n < classes.size(); ++n) {
    const int64_t label = labels[n];
    if (label == ignore_index) {
      classes[n] = -1;
    } else if (label >= 0 && label < num_classes) {
      classes[n] = label;
    } else {
      refuse_label(label, n, num_classes, ignore_index);
    }
  }
}

}  // namespace

std::vector<int64_t> read_classes(const Tensor& labels, int64_t samples, int64_t num_classes,
                                  int64_t ignore_index) {
  check(labels.dim() == 1 && labels.size(0) == samples, "labels must have shape [", samples, "]");
  const Tensor dense = torch::stable::contiguous(labels);
  std::vector<int64_t> classes(samples);
  if (labels.scalar_type() == ScalarType::Long) {
    read(dense.const_data_ptr<int64_t>(), num_classes, ignore_index, classes);
  } else {
    check(labels.scalar_type() == ScalarType::Int, "labels must be int64 or int32");
    read(dense.const_data_ptr<int32_t>(), num_classes, ignore_index, classes);
  }
  return classes;
}

}  // namespace selkern
