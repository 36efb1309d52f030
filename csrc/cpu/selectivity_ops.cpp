#include "selectivity_ops.h"

#include <cstring>

#include "common/selectivity_index.h"
#include "cpu/capability.h"
#include "cpu/parallel.h"
#include "cpu/selectivity_class_order.h"

namespace selkern::cpu {
namespace {

void clear_absent_rows(const ClassMeansParams& params) {
  char* row = static_cast<char*>(params.means);
  const size_t size = params.dtype == DType::float64 ? sizeof(double) : sizeof(float);
  for (int64_t k = 0; k < params.labels.num_classes; ++k, row += params.units * size) {
    if (params.counts[k] == 0) std::memset(row, 0, params.units * size);
  }
}

// Mean over the units of each layer, then over the layers.
template <typename T>
void mean_over_layers(const std::vector<LayerMeansView>& layers,
                      const SelectivityResults& results) {
  const T* index = static_cast<const T*>(results.index);
  double total = 0;
  for (size_t l = 0; l < layers.size(); ++l) {
    double sum = 0;
    for (int64_t c = 0; c < layers[l].units; ++c) sum += *index++;
    static_cast<T*>(results.layers)[l] = sum / layers[l].units;
    total += sum / layers[l].units;
  }
  *static_cast<T*>(results.loss) = total / layers.size();
}

// Zeros for null. values: [count], float64 where dtype is, otherwise float32.
std::vector<double> as_doubles(const void* values, DType dtype, int64_t count) {
  std::vector<double> doubles(count);
  if (values == nullptr) return doubles;
  if (dtype == DType::float64) {
    std::copy_n(static_cast<const double*>(values), count, doubles.begin());
  } else {
    std::copy_n(static_cast<const float*>(values), count, doubles.begin());
  }
  return doubles;
}

struct Cpu {
  static void class_means(const ClassMeansParams& params, const Tensor&) {
    const SortedSamples sorted(read_classes(params.labels), params.labels.num_classes,
                               params.counts);
    const ClassMeansWork work{params, sorted.order()};
    clear_absent_rows(params);
    const int64_t present = work.order.present;
    const int64_t samples_per_class = params.labels.samples / std::max<int64_t>(1, present);
    parallel_items(kernels().class_means, work, present, samples_per_class * params.units);
  }

  static void class_means_backward(const ClassMeansBackwardParams& params, const Tensor&) {
    const auto classes = read_classes(params.labels);
    const ClassMeansBackwardWork work{params, classes.data()};
    parallel_items(kernels().class_means_backward, work, params.labels.samples, params.units);
  }

  static void selectivity(const SelectivityParams& params, const LayerMeans& layer_means,
                          const Tensor&) {
    const SortedSamples sorted(read_classes(params.labels), params.labels.num_classes,
                               params.counts);
    parallel_layers(
        kernels().spatial_mean, layer_means.pending(),
        [](const auto& layer) { return map_items(layer.x_layout); },
        [](const auto& layer) { return map_item_cost(layer.x_layout); });
    std::vector<SelectivityWork> layers;
    int64_t first_unit = 0;
    for (const LayerMeansView& view : layer_means.views()) {
      layers.push_back({view, first_unit, sorted.order(), params.eps, params.results});
      first_unit += view.units;
    }
    parallel_layers(
        kernels().selectivity, layers, [](const auto& work) { return work.blocks(); },
        [&](const auto& work) {
          return std::min(work.layer.units, SelectivityWork::block_units) *
                 (params.labels.samples + 1);
        });
    const bool is_double = params.results.result_dtype == DType::float64;
    const auto mean = is_double ? &mean_over_layers<double> : &mean_over_layers<float>;
    mean(layer_means.views(), params.results);
  }

  static void selectivity_backward(const SelectivityBackwardParams& params,
                                   const std::vector<LayerExtent>& layers, const Tensor&) {
    const auto classes = read_classes(params.labels);
    const auto present = std::count_if(params.counts, params.counts + params.labels.num_classes,
                                       [](int64_t n) { return n > 0; });
    const auto doubles = [&](const void* values, int64_t count) {
      return as_doubles(values, params.dtype, count);
    };
    const double loss_gradient = doubles(params.gradients.loss, 1)[0];
    const auto index_gradient = doubles(params.gradients.index, params.units);
    auto maximum_gradient = doubles(params.gradients.maximum, params.units);
    auto rest_gradient = doubles(params.gradients.rest, params.units);
    const auto maxima = doubles(params.maximum, params.units);
    const auto rests = doubles(params.rest, params.units);
    int64_t u = 0;
    for (const LayerExtent& layer : layers) {
      const double layer_gradient = loss_gradient / (double(layers.size()) * layer.units);
      for (const int64_t end = u + layer.units; u < end; ++u) {
        const auto gradient =
            class_mean_gradient(index_gradient[u] + layer_gradient, maximum_gradient[u],
                                rest_gradient[u], maxima[u], rests[u], double(present), params.eps);
        maximum_gradient[u] = gradient.maximum / layer.positions;
        rest_gradient[u] = gradient.rest / layer.positions;
      }
    }
    const SelectivityBackwardWork work{params, classes.data(), maximum_gradient.data(),
                                       rest_gradient.data()};
    parallel_items(kernels().selectivity_backward, work, params.labels.samples, params.units);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(selkern, CPU, m) { register_selectivity<Cpu>(m); }

}  // namespace selkern::cpu
