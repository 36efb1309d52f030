#include "selectivity_ops.h"

#include <cstdlib>
#include <cstring>

#include "cuda/device.h"
#include "cuda/pooling.h"
#include "cuda/register.h"
#include "cuda/selectivity.h"

namespace selkern::cuda {
namespace {

// SELKERN_CHECK=1 trades a synchronisation for an error that names the first bad label.
void check_classes(Labels labels, const Tensor& tensor) {
  const char* value = std::getenv("SELKERN_CHECK");
  if (value == nullptr || std::strcmp(value, "1") != 0) return;
  const Tensor copy = on_cpu(tensor);
  labels.data = copy.const_data_ptr();
  read_classes(labels);
}

// Device memory for a ClassOrder whose counts are an output.
class ClassOrderMemory {
 public:
  ClassOrderMemory(const Labels& labels, int64_t* counts, const Tensor& like)
      : memory_(empty({2 * labels.samples + labels.num_classes + 2}, ScalarType::Long, like)) {
    int64_t* next = memory_.mutable_data_ptr<int64_t>();
    order_.scale = sum_scale(labels.samples);
    const auto take = [&](int64_t size) { return std::exchange(next, next + size); };
    order_.samples = take(labels.samples);
    order_.classes = take(labels.samples);
    order_.counts = counts;
    order_.ends = take(labels.num_classes);
    order_.kept = take(1);
    order_.has_invalid = reinterpret_cast<int*>(take(1));
    order_.blocks_done = reinterpret_cast<unsigned*>(order_.has_invalid + 1);
  }

  const ClassOrder& order() const { return order_; }

 private:
  Tensor memory_;
  ClassOrder order_;
};

struct Cuda {
  static void class_means(const ClassMeansParams& params, const Tensor& labels) {
    check_classes(params.labels, labels);
    const ClassOrderMemory memory(params.labels, params.counts, labels);
    const DeviceScope scope(labels);
    launch_class_order(params.labels, memory.order(), scope.stream());
    if (params.units > 0) launch_class_means(params, memory.order(), scope.stream());
  }

  static void class_means_backward(const ClassMeansBackwardParams& params, const Tensor& labels) {
    check_classes(params.labels, labels);
    if (params.labels.samples == 0 || params.units == 0) return;
    const DeviceScope scope(labels);
    launch_class_means_backward(params, scope.stream());
  }

  static void selectivity(const SelectivityParams& params, const LayerMeans& layer_means,
                          const Tensor& labels) {
    check_classes(params.labels, labels);
    const ClassOrderMemory memory(params.labels, params.counts, labels);
    const DeviceScope scope(labels);
    launch_spatial_means_and_class_order(layer_means.pending(), params.labels, memory.order(),
                                         scope.stream());
    launch_selectivity(layer_means.views(), memory.order(), params.eps, params.results,
                       scope.stream());
  }

  static void selectivity_backward(const SelectivityBackwardParams& params,
                                   const std::vector<LayerExtent>& layers, const Tensor& labels) {
    check_classes(params.labels, labels);
    const DeviceScope scope(labels);
    launch_selectivity_backward(params, layers, scope.stream());
  }
};

}  // namespace

void register_selectivity_operators(torch::stable::detail::StableLibrary& m) {
  register_selectivity<Cuda>(m);
}

}  // namespace selkern::cuda
