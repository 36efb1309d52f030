#include "selectivity_ops.h"

#include <cstring>

#include "common/labels.h"
#include "common/selectivity_index.h"
#include "cpu/capability.h"
#include "cpu/parallel.h"
#include "cpu/selectivity_class_order.h"

namespace selkern::cpu {
namespace {

void clear_absent_rows(Tensor& means, const Tensor& counts) {
  char* row = static_cast<char*>(means.mutable_data_ptr());
  const int64_t* count = counts.const_data_ptr<int64_t>();
  const size_t row_bytes = means.size(1) * means.element_size();
  for (int64_t k = 0; k < counts.size(0); ++k, row += row_bytes) {
    if (count[k] == 0) std::memset(row, 0, row_bytes);
  }
}

std::tuple<Tensor, Tensor> class_means(const Tensor& x, const Tensor& labels, int64_t num_classes,
                                       int64_t ignore_index) {
  check_class_means(x, labels, num_classes);
  auto [means, counts] = ClassMeansOutputs(x, num_classes);
  const SortedSamples sorted(read_classes(labels, x.size(0), num_classes, ignore_index),
                             num_classes, counts.mutable_data_ptr<int64_t>());
  const ClassOrder order = sorted.order();

  const Tensor rows = readable_rows(x);
  const ClassMeansParams params{
      dtype_of(x, "x"),        rows.const_data_ptr(), rows.stride(0), x.size(1), order,
      means.mutable_data_ptr()};
  clear_absent_rows(means, counts);
  const int64_t samples_per_class = x.size(0) / std::max<int64_t>(1, order.present);
  parallel_items(kernels().class_means, params, order.present, samples_per_class * x.size(1));
  return {means, counts};
}

Tensor class_means_backward(const Tensor& grad, const Tensor& labels, const Tensor& counts,
                            int64_t ignore_index, ScalarType dtype) {
  check_class_means_backward(grad, labels, counts, dtype);
  const int64_t samples = labels.size(0), units = grad.size(1);
  const auto classes = read_classes(labels, samples, grad.size(0), ignore_index);
  const Tensor dense_grad = torch::stable::contiguous(grad);
  const Tensor dense_counts = torch::stable::contiguous(counts);
  Tensor grad_x = empty({samples, units}, dtype, grad);
  const ClassMeansBackwardParams params{dtype_of(grad, "grad"),
                                        dense_grad.const_data_ptr(),
                                        classes.data(),
                                        dense_counts.const_data_ptr<int64_t>(),
                                        units,
                                        dtype_of(dtype, "dtype"),
                                        grad_x.mutable_data_ptr()};
  parallel_items(kernels().class_means_backward, params, samples, units);
  return grad_x;
}

void run_spatial_means(const std::vector<SpatialMeanParams>& layers) {
  parallel_layers(
      kernels().spatial_mean, layers, [](const auto& layer) { return map_items(layer.x_layout); },
      [](const auto& layer) { return map_item_cost(layer.x_layout); });
}

// Mean over the units of each layer, then over the layers.
template <typename T>
void mean_over_layers(const std::vector<SelectivityParams>& layers, T* layer_index, T* loss) {
  double total = 0;
  for (size_t l = 0; l < layers.size(); ++l) {
    double sum = 0;
    for (int64_t c = 0; c < layers[l].units; ++c) sum += static_cast<const T*>(layers[l].index)[c];
    layer_index[l] = sum / layers[l].units;
    total += sum / layers[l].units;
  }
  *loss = total / layers.size();
}

SelectivityTuple selectivity(const std::vector<Tensor>& activations, const Tensor& labels,
                             int64_t num_classes, double eps, int64_t ignore_index) {
  check_selectivity(activations, labels, num_classes);
  const LayerMeans layer_means(activations);
  const int64_t samples = activations[0].size(0);
  SelectivityOutputs out(activations, num_classes);
  const SortedSamples sorted(read_classes(labels, samples, num_classes, ignore_index), num_classes,
                             out.counts.mutable_data_ptr<int64_t>());
  run_spatial_means(layer_means.pending());

  std::vector<SelectivityParams> layers;
  const int64_t size = out.index.element_size();
  int64_t offset = 0;
  for (const Tensor& mean : layer_means.means()) {
    layers.push_back({dtype_of(mean, "activations"), mean.const_data_ptr(), mean.stride(0),
                      mean.size(1), sorted.order(), eps, dtype_of(out.type, "result"),
                      static_cast<char*>(out.index.mutable_data_ptr()) + offset * size,
                      static_cast<char*>(out.maximum.mutable_data_ptr()) + offset * size,
                      static_cast<char*>(out.rest.mutable_data_ptr()) + offset * size,
                      out.winner.mutable_data_ptr<int64_t>() + offset});
    offset += mean.size(1);
  }
  parallel_layers(
      kernels().selectivity, layers, [](const auto& layer) { return layer.items(); },
      [&](const auto& layer) {
        return std::min(layer.units, SelectivityParams::block_units) * (samples + 1);
      });
  if (out.type == ScalarType::Double) {
    mean_over_layers(layers, out.layers.mutable_data_ptr<double>(),
                     out.loss.mutable_data_ptr<double>());
  } else {
    mean_over_layers(layers, out.layers.mutable_data_ptr<float>(),
                     out.loss.mutable_data_ptr<float>());
  }
  return out.tuple();
}

std::vector<double> as_doubles(const Tensor& tensor, int64_t units) {
  const Tensor dense = torch::stable::contiguous(tensor);
  std::vector<double> values(units);
  if (tensor.scalar_type() == ScalarType::Double) {
    std::copy_n(dense.const_data_ptr<double>(), units, values.begin());
  } else {
    std::copy_n(dense.const_data_ptr<float>(), units, values.begin());
  }
  return values;
}

std::vector<double> as_doubles_or_zeros(const std::optional<Tensor>& tensor, int64_t units) {
  return tensor ? as_doubles(*tensor, units) : std::vector<double>(units);
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
  const auto classes = read_classes(labels, samples, counts.size(0), ignore_index);
  const Tensor dense_counts = torch::stable::contiguous(counts);
  const Tensor dense_winner = torch::stable::contiguous(winner);
  const int64_t* count = dense_counts.const_data_ptr<int64_t>();
  const auto present =
      std::count_if(count, count + counts.size(0), [](int64_t n) { return n > 0; });

  const double loss_gradient = grad_loss ? as_doubles(*grad_loss, 1)[0] : 0.0;
  const auto index_gradient = as_doubles_or_zeros(grad_index, all_units);
  auto maximum_gradient = as_doubles_or_zeros(grad_maximum, all_units);
  auto rest_gradient = as_doubles_or_zeros(grad_rest, all_units);
  const auto maxima = as_doubles(maximum, all_units), rests = as_doubles(rest, all_units);
  int64_t u = 0;
  for (size_t l = 0; l < units.size(); ++l) {
    const double layer_gradient = loss_gradient / (double(units.size()) * units[l]);
    for (const int64_t end = u + units[l]; u < end; ++u) {
      const auto gradient =
          class_mean_gradient(index_gradient[u] + layer_gradient, maximum_gradient[u],
                              rest_gradient[u], maxima[u], rests[u], double(present), eps);
      maximum_gradient[u] = gradient.maximum / positions[l];
      rest_gradient[u] = gradient.rest / positions[l];
    }
  }

  Tensor grad_means = empty({samples, all_units}, dtype, maximum);
  const SelectivityBackwardParams params{maximum_gradient.data(),
                                         rest_gradient.data(),
                                         dense_winner.const_data_ptr<int64_t>(),
                                         classes.data(),
                                         count,
                                         all_units,
                                         dtype_of(dtype, "dtype"),
                                         grad_means.mutable_data_ptr()};
  parallel_items(kernels().selectivity_backward, params, samples, all_units);
  return grad_means;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(selkern, CPU, m) {
  m.impl("class_means", TORCH_BOX(&class_means));
  m.impl("class_means_backward", TORCH_BOX(&class_means_backward));
  m.impl("selectivity", TORCH_BOX(&selectivity));
  m.impl("selectivity_backward", TORCH_BOX(&selectivity_backward));
}

}  // namespace selkern::cpu
