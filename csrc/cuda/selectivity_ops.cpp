#include "selectivity_ops.h"

#include <cstdlib>
#include <cstring>

#include "common/labels.h"
#include "cuda/device.h"
#include "cuda/pooling.h"
#include "cuda/register.h"
#include "cuda/selectivity.h"

namespace selkern::cuda {
namespace {

// SELKERN_CHECK=1 trades a synchronisation for an error that names the first bad label.
bool checks_labels() {
  const char* value = std::getenv("SELKERN_CHECK");
  return value != nullptr && std::strcmp(value, "1") == 0;
}

// The labels as a kernel reads them; `dense` keeps a copy alive where one was needed.
Labels readable_labels(const Tensor& labels, int64_t samples, int64_t num_classes,
                       int64_t ignore_index, Tensor& dense) {
  check(labels.dim() == 1 && labels.size(0) == samples, "labels must have shape [", samples, "]");
  const bool is_int64 = labels.scalar_type() == ScalarType::Long;
  check(is_int64 || labels.scalar_type() == ScalarType::Int, "labels must be int64 or int32");
  if (checks_labels()) read_classes(on_cpu(labels), samples, num_classes, ignore_index);
  dense = torch::stable::contiguous(labels);
  return {dense.const_data_ptr(), is_int64, samples, num_classes, ignore_index};
}

// Device memory for a ClassOrder whose counts are an output.
class ClassOrderMemory {
 public:
  ClassOrderMemory(int64_t samples, Tensor& counts)
      : memory_(empty({2 * samples + counts.size(0) + 2}, ScalarType::Long, counts)) {
    int64_t* next = memory_.mutable_data_ptr<int64_t>();
    order_.scale = sum_scale(samples);
    const auto take = [&](int64_t size) { return std::exchange(next, next + size); };
    order_.samples = take(samples);
    order_.classes = take(samples);
    order_.counts = counts.mutable_data_ptr<int64_t>();
    order_.ends = take(counts.size(0));
    order_.kept = take(1);
    order_.has_invalid = reinterpret_cast<int*>(take(1));
    order_.blocks_done = reinterpret_cast<unsigned*>(order_.has_invalid + 1);
  }

  const ClassOrder& order() const { return order_; }

 private:
  Tensor memory_;
  ClassOrder order_;
};

std::tuple<Tensor, Tensor> class_means(const Tensor& x, const Tensor& labels, int64_t num_classes,
                                       int64_t ignore_index) {
  check_class_means(x, labels, num_classes);
  Tensor dense_labels;
  const Labels of_samples =
      readable_labels(labels, x.size(0), num_classes, ignore_index, dense_labels);
  auto [means, counts] = ClassMeansOutputs(x, num_classes);
  const ClassOrderMemory memory(x.size(0), counts);
  const Tensor rows = readable_rows(x);

  const DeviceScope scope(x);
  launch_class_order(of_samples, memory.order(), scope.stream());
  if (means.numel() > 0) {
    launch_class_means({dtype_of(x, "x"), rows.const_data_ptr(), rows.stride(0), x.size(1),
                        num_classes, memory.order(), means.mutable_data_ptr()},
                       scope.stream());
  }
  return {means, counts};
}

Tensor class_means_backward(const Tensor& grad, const Tensor& labels, const Tensor& counts,
                            int64_t ignore_index, ScalarType dtype) {
  check_class_means_backward(grad, labels, counts, dtype);
  Tensor dense_labels;
  const Labels of_samples =
      readable_labels(labels, labels.size(0), grad.size(0), ignore_index, dense_labels);
  const Tensor dense_grad = torch::stable::contiguous(grad);
  const Tensor dense_counts = torch::stable::contiguous(counts);
  Tensor grad_x = empty({labels.size(0), grad.size(1)}, dtype, grad);
  const DType type = dtype_of(dtype, "dtype");
  if (grad_x.numel() == 0) return grad_x;

  const DeviceScope scope(grad);
  launch_class_means_backward(
      {dense_grad.const_data_ptr(), of_samples, dense_counts.const_data_ptr<int64_t>(),
       grad.size(1), type, grad_x.mutable_data_ptr()},
      scope.stream());
  return grad_x;
}

SelectivityTuple selectivity(const std::vector<Tensor>& activations, const Tensor& labels,
                             int64_t num_classes, double eps, int64_t ignore_index) {
  check_selectivity(activations, labels, num_classes);
  const int64_t samples = activations[0].size(0);
  Tensor dense_labels;
  const Labels of_samples =
      readable_labels(labels, samples, num_classes, ignore_index, dense_labels);
  const LayerMeans layer_means(activations);
  SelectivityOutputs out(activations, num_classes);
  const ClassOrderMemory memory(samples, out.counts);
  std::vector<LayerMeansView> views;
  for (const Tensor& mean : layer_means.means()) {
    views.push_back(
        {dtype_of(mean, "activations"), mean.const_data_ptr(), mean.stride(0), mean.size(1)});
  }

  const DeviceScope scope(activations[0]);
  launch_spatial_means_and_class_order(layer_means.pending(), of_samples, memory.order(),
                                       scope.stream());
  launch_selectivity(
      views, memory.order(), eps,
      {dtype_of(out.type, "result"), out.loss.mutable_data_ptr(), out.layers.mutable_data_ptr(),
       out.index.mutable_data_ptr(), out.maximum.mutable_data_ptr(), out.rest.mutable_data_ptr(),
       out.winner.mutable_data_ptr<int64_t>()},
      scope.stream());
  return out.tuple();
}

std::optional<Tensor> dense(const std::optional<Tensor>& tensor) {
  if (!tensor) return std::nullopt;
  return torch::stable::contiguous(*tensor);
}

const void* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr() : nullptr;
}

Tensor selectivity_backward(const std::optional<Tensor>& grad_loss,
                            const std::optional<Tensor>& grad_index,
                            const std::optional<Tensor>& grad_maximum,
                            const std::optional<Tensor>& grad_rest, const Tensor& maximum,
                            const Tensor& rest, const Tensor& winner, const Tensor& counts,
                            const Tensor& labels, const std::vector<int64_t> units,
                            const std::vector<int64_t> positions, double eps, int64_t ignore_index,
                            ScalarType dtype) {
  SelectivityGradientInputs{grad_loss, grad_index, grad_maximum, grad_rest, maximum,
                            rest,      winner,     counts,       labels}
      .check_all(dtype);
  const int64_t all_units = maximum.numel(), samples = labels.size(0);
  check_layers(units, positions, all_units);
  Tensor dense_labels;
  const Labels of_samples =
      readable_labels(labels, samples, counts.size(0), ignore_index, dense_labels);
  const auto loss = dense(grad_loss), index = dense(grad_index);
  const auto of_maximum = dense(grad_maximum), of_rest = dense(grad_rest);
  const Tensor maxima = torch::stable::contiguous(maximum);
  const Tensor rests = torch::stable::contiguous(rest);
  const Tensor winners = torch::stable::contiguous(winner);
  const Tensor dense_counts = torch::stable::contiguous(counts);
  Tensor grad_sums = empty({samples, all_units}, dtype, maximum);
  std::vector<LayerExtent> layers;
  for (size_t l = 0; l < units.size(); ++l) layers.push_back({units[l], positions[l]});

  const DeviceScope scope(maximum);
  launch_selectivity_backward(
      {{data_or_null(loss), data_or_null(index), data_or_null(of_maximum), data_or_null(of_rest)},
       maxima.const_data_ptr(),
       rests.const_data_ptr(),
       winners.const_data_ptr<int64_t>(),
       dense_counts.const_data_ptr<int64_t>(),
       of_samples,
       eps,
       all_units,
       dtype_of(dtype, "dtype"),
       grad_sums.mutable_data_ptr()},
      layers, scope.stream());
  return grad_sums;
}

}  // namespace

void register_selectivity_operators(torch::stable::detail::StableLibrary& m) {
  m.impl("class_means", TORCH_BOX(&class_means));
  m.impl("class_means_backward", TORCH_BOX(&class_means_backward));
  m.impl("selectivity", TORCH_BOX(&selectivity));
  m.impl("selectivity_backward", TORCH_BOX(&selectivity_backward));
}

}  // namespace selkern::cuda
