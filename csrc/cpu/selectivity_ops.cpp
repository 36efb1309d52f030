#include <cstring>
#include <tuple>

#include "common/selectivity_index.h"
#include "cpu/capability.h"
#include "cpu/labels.h"
#include "cpu/parallel.h"
#include "tensors.h"

namespace selkern::cpu {
namespace {

void check_num_classes(int64_t num_classes) {
  check(num_classes >= 1, "num_classes must be at least 1, got ", num_classes);
}

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
  check(x.dim() == 2, "x must have shape [N, C], got ", x.dim(), " axes");
  check_num_classes(num_classes);
  const DType dtype = dtype_of(x, "x");
  Tensor counts = empty({num_classes}, ScalarType::Long, x);
  Tensor means = empty({num_classes, x.size(1)}, result_type(x.scalar_type()), x);
  const SortedSamples sorted(read_classes(labels, x.size(0), num_classes, ignore_index),
                             num_classes, counts.mutable_data_ptr<int64_t>());
  const ClassOrder order = sorted.order();

  const Tensor rows = readable_rows(x);
  const ClassMeansParams params{dtype, rows.const_data_ptr(),   rows.stride(0), x.size(1),
                                order, means.mutable_data_ptr()};
  clear_absent_rows(means, counts);
  const int64_t samples_per_class = x.size(0) / std::max<int64_t>(1, order.present);
  parallel_items(kernels().class_means, params, order.present, samples_per_class * x.size(1));
  return {means, counts};
}

Tensor class_means_backward(const Tensor& grad, const Tensor& labels, const Tensor& counts,
                            int64_t ignore_index, ScalarType dtype) {
  check(grad.dim() == 2 && counts.dim() == 1 && grad.size(0) == counts.size(0) &&
            counts.scalar_type() == ScalarType::Long,
        "grad must have shape [K, C] and counts be int64 [K]");
  check(result_type(grad.scalar_type()) == grad.scalar_type(), "grad must be float32 or float64");
  check(labels.dim() == 1, "labels must have shape [N], got ", labels.dim(), " axes");
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

// The layers' activations averaged over positions. Those that have one position are read in place.
class LayerMeans {
 public:
  explicit LayerMeans(const std::vector<Tensor>& activations) {
    std::vector<SpatialMeanParams> layers;
    for (const Tensor& x : activations) {
      check(x.dim() >= 2, "activations must have shape [N, C, ...], got ", x.dim(), " axes");
      check(x.size(0) == activations[0].size(0),
            "activations must have the same number of samples");
      dtype_of(x, "activations");
      add(x, layers);
    }
    parallel_layers(
        kernels().spatial_mean, layers, [](const auto& layer) { return layer.items(); },
        [](const auto& layer) { return layer.item_cost(); });
  }

  const std::vector<Tensor>& means() const { return means_; }

 private:
  void add(const Tensor& x, std::vector<SpatialMeanParams>& layers) {
    if (x.dim() == 2) {
      means_.push_back(readable_rows(x));
      return;
    }
    const Maps maps = readable_maps(x);
    Tensor mean = empty({x.size(0), x.size(1)}, result_type(x.scalar_type()), x);
    SpatialMeanParams params{};
    params.dtype = dtype_of(x, "activations");
    params.x = maps.tensor.const_data_ptr();
    params.x_layout = params.y_layout = maps.layout;
    params.mean = mean.mutable_data_ptr();
    if (mean.numel() > 0) layers.push_back(params);
    maps_.push_back(maps.tensor);
    means_.push_back(mean);
  }

  std::vector<Tensor> maps_;  // keeps copies alive
  std::vector<Tensor> means_;
};

ScalarType common_result_type(const std::vector<Tensor>& tensors) {
  for (const Tensor& tensor : tensors) {
    if (tensor.scalar_type() == ScalarType::Double) return ScalarType::Double;
  }
  return ScalarType::Float;
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

using SelectivityResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

SelectivityResult selectivity(const std::vector<Tensor>& activations, const Tensor& labels,
                              int64_t num_classes, double eps, int64_t ignore_index) {
  check(!activations.empty(), "activations must hold at least one tensor");
  check_num_classes(num_classes);
  const Tensor& first = activations[0];
  check(first.dim() >= 2, "activations must have shape [N, C, ...], got ", first.dim(), " axes");
  Tensor counts = empty({num_classes}, ScalarType::Long, first);
  const SortedSamples sorted(read_classes(labels, first.size(0), num_classes, ignore_index),
                             num_classes, counts.mutable_data_ptr<int64_t>());
  const LayerMeans layer_means(activations);

  int64_t units = 0;
  for (const Tensor& mean : layer_means.means()) units += mean.size(1);
  const ScalarType type = common_result_type(activations);
  Tensor loss = empty({}, type, first);
  Tensor layer_index = empty({int64_t(activations.size())}, type, first);
  Tensor index = empty({units}, type, first);
  Tensor maximum = empty({units}, type, first);
  Tensor rest = empty({units}, type, first);
  Tensor winner = empty({units}, ScalarType::Long, first);

  std::vector<SelectivityParams> layers;
  const int64_t size = index.element_size();
  int64_t offset = 0;
  for (const Tensor& mean : layer_means.means()) {
    layers.push_back({dtype_of(mean, "activations"), mean.const_data_ptr(), mean.stride(0),
                      mean.size(1), sorted.order(), eps, dtype_of(type, "result"),
                      static_cast<char*>(index.mutable_data_ptr()) + offset * size,
                      static_cast<char*>(maximum.mutable_data_ptr()) + offset * size,
                      static_cast<char*>(rest.mutable_data_ptr()) + offset * size,
                      winner.mutable_data_ptr<int64_t>() + offset});
    offset += mean.size(1);
  }
  parallel_layers(
      kernels().selectivity, layers, [](const auto& layer) { return layer.items(); },
      [&](const auto& layer) {
        return std::min(layer.units, SelectivityParams::block_units) * (first.size(0) + 1);
      });
  if (type == ScalarType::Double) {
    mean_over_layers(layers, layer_index.mutable_data_ptr<double>(),
                     loss.mutable_data_ptr<double>());
  } else {
    mean_over_layers(layers, layer_index.mutable_data_ptr<float>(), loss.mutable_data_ptr<float>());
  }
  return {loss, layer_index, index, maximum, rest, winner, counts};
}

std::vector<double> as_doubles(const Tensor& tensor, int64_t units) {
  check(tensor.numel() == units, "expected ", units, " units, got ", tensor.numel());
  const Tensor dense = torch::stable::contiguous(tensor);
  std::vector<double> values(units);
  if (tensor.scalar_type() == ScalarType::Double) {
    std::copy_n(dense.const_data_ptr<double>(), units, values.begin());
  } else {
    check(tensor.scalar_type() == ScalarType::Float, "expected float32 or float64");
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
  check(labels.dim() == 1, "labels must have shape [N], got ", labels.dim(), " axes");
  const int64_t all_units = maximum.numel(), samples = labels.size(0);
  check(counts.dim() == 1 && counts.scalar_type() == ScalarType::Long &&
            winner.scalar_type() == ScalarType::Long && winner.numel() == all_units,
        "counts and winner must be int64, winner one per unit");
  check(units.size() == positions.size(), "units and positions must have one entry per layer");
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
    check(units[l] >= 0 && units[l] <= all_units - u && positions[l] >= 0, "units must add up to ",
          all_units, ", positions be at least 0");
    const double layer_gradient = loss_gradient / (double(units.size()) * units[l]);
    for (const int64_t end = u + units[l]; u < end; ++u) {
      const double gradient = index_gradient[u] + layer_gradient;
      const auto partial = selectivity_index_gradient(maxima[u], rests[u], present > 1, eps);
      maximum_gradient[u] += gradient * partial.maximum;
      rest_gradient[u] += gradient * partial.rest;
      maximum_gradient[u] /= positions[l];
      rest_gradient[u] /= positions[l] * std::max<double>(1, present - 1);
    }
  }
  check(u == all_units, "units must add up to ", all_units, ", got ", u);

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
