// The operators of the selectivity family, for a Device that runs their kernels:
//   static void class_means(const ClassMeansParams&, const Tensor& labels);
//   static void class_means_backward(const ClassMeansBackwardParams&, const Tensor& labels);
//   static void selectivity(const SelectivityParams&, const LayerMeans&, const Tensor& labels);
//   static void selectivity_backward(const SelectivityBackwardParams&,
//                                    const std::vector<LayerExtent>&, const Tensor& labels);
// labels are those that the parameters point to, which a Device may refuse: so all are called
// without samples or units too.
#pragma once

#include <tuple>

#include "common/selectivity.h"
#include "pooling_ops.h"

namespace selkern {

inline void check_labels(const Tensor& labels, const Tensor& like) {
  check(labels.dim() == 1, "labels must have shape [N], got ", labels.dim(), " axes");
  check_same_device(labels, like, "labels");
}

inline void check_num_classes(int64_t num_classes) {
  check(num_classes >= 1, "num_classes must be at least 1, got ", num_classes);
}

inline const char* result_name(ScalarType dtype) {
  return dtype == ScalarType::Double ? "float64 for float64" : "float32 for float32 and below";
}

// Labels as kernels read them.
struct ReadableLabels {
  Tensor tensor;
  Labels labels;

  ReadableLabels(const Tensor& given, int64_t samples, int64_t num_classes, int64_t ignore_index)
      : tensor(checked(given, samples)),
        labels{tensor.const_data_ptr(), tensor.scalar_type() == ScalarType::Long, samples,
               num_classes, ignore_index} {}

 private:
  static Tensor checked(const Tensor& labels, int64_t samples) {
    check(labels.dim() == 1 && labels.size(0) == samples, "labels must have shape [", samples,
          "], got ", ShapeOf{labels});
    check(labels.scalar_type() == ScalarType::Long || labels.scalar_type() == ScalarType::Int,
          "labels must be int64 or int32, got ", DtypeName{labels.scalar_type()});
    return torch::stable::contiguous(labels);
  }
};

template <typename Device>
std::tuple<Tensor, Tensor> class_means(const Tensor& x, const Tensor& labels, int64_t num_classes,
                                       int64_t ignore_index) {
  check(x.dim() == 2, "x must have shape [N, C], got ", x.dim(), " axes");
  check_labels(labels, x);
  check_num_classes(num_classes);
  const DType dtype = dtype_of(x, "x");
  const ReadableLabels readable(labels, x.size(0), num_classes, ignore_index);
  const Tensor rows = readable_rows(x);
  Tensor means = empty({num_classes, x.size(1)}, result_type(x.scalar_type()), x);
  Tensor counts = empty({num_classes}, ScalarType::Long, x);
  const ClassMeansParams params{dtype,
                                rows.const_data_ptr(),
                                rows.stride(0),
                                rows.size(1),
                                readable.labels,
                                means.mutable_data_ptr(),
                                counts.mutable_data_ptr<int64_t>()};
  Device::class_means(params, readable.tensor);
  return {means, counts};
}

template <typename Device>
Tensor class_means_backward(const Tensor& grad, const Tensor& labels, const Tensor& counts,
                            int64_t ignore_index, ScalarType dtype) {
  check(grad.dim() == 2 && counts.dim() == 1 && grad.size(0) == counts.size(0) &&
            counts.scalar_type() == ScalarType::Long,
        "grad must have shape [K, C] and counts be int64 [K], got ", ShapeOf{grad}, " and ",
        KindOf{counts});
  check_num_classes(counts.size(0));
  const DType computed = dtype_of(dtype, "dtype");
  check(grad.scalar_type() == result_type(dtype), "grad must be ", result_name(dtype), ", got ",
        DtypeName{grad.scalar_type()});
  check_labels(labels, grad);
  check_same_device(counts, grad, "counts");
  const int64_t samples = labels.size(0), units = grad.size(1);
  const ReadableLabels readable(labels, samples, counts.size(0), ignore_index);
  const Tensor dense_grad = torch::stable::contiguous(grad);
  const Tensor dense_counts = torch::stable::contiguous(counts);
  Tensor grad_x = empty({samples, units}, dtype, grad);
  const ClassMeansBackwardParams params{dense_grad.const_data_ptr(),
                                        readable.labels,
                                        dense_counts.const_data_ptr<int64_t>(),
                                        units,
                                        computed,
                                        grad_x.mutable_data_ptr()};
  Device::class_means_backward(params, readable.tensor);
  return grad_x;
}

// The layers' activations averaged over positions. Those that have one position are read in place;
// for the others a mean is allocated, which a kernel has yet to compute.
class LayerMeans {
 public:
  explicit LayerMeans(const std::vector<Tensor>& activations) {
    for (const Tensor& x : activations) {
      check(x.dim() >= 2, "activations must have shape [N, C, ...], got ", x.dim(), " axes");
      check(x.size(0) == activations[0].size(0),
            "activations must have the same number of samples, got ", x.size(0), " and ",
            activations[0].size(0));
      check_same_device(x, activations[0], "activations");
      dtype_of(x, "activations");
      add(x);
    }
  }

  const std::vector<LayerMeansView>& views() const { return views_; }
  const std::vector<SpatialMeanParams>& pending() const { return pending_; }

 private:
  void add(const Tensor& x) {
    if (x.dim() == 2) return add_mean(readable_rows(x));
    const Maps maps = readable_maps(x);
    Tensor mean = empty_mean(x);
    const SpatialMeanParams params = spatial_mean_params(maps, mean);
    if (mean.numel() > 0) pending_.push_back(params);
    tensors_.push_back(maps.tensor);
    add_mean(mean);
  }

  void add_mean(const Tensor& mean) {
    views_.push_back(
        {dtype_of(mean, "activations"), mean.const_data_ptr(), mean.stride(0), mean.size(1)});
    tensors_.push_back(mean);
  }

  std::vector<Tensor> tensors_;  // keeps them alive
  std::vector<LayerMeansView> views_;
  std::vector<SpatialMeanParams> pending_;
};

inline ScalarType common_result_type(const std::vector<Tensor>& tensors) {
  for (const Tensor& tensor : tensors) {
    if (tensor.scalar_type() == ScalarType::Double) return ScalarType::Double;
  }
  return ScalarType::Float;
}

using SelectivityTuple = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename Device>
SelectivityTuple selectivity(const std::vector<Tensor>& activations, const Tensor& labels,
                             int64_t num_classes, double eps, int64_t ignore_index) {
  check(!activations.empty(), "activations must hold at least one tensor");
  const Tensor& like = activations[0];
  check_labels(labels, like);
  check_num_classes(num_classes);
  check(like.dim() >= 2, "activations must have shape [N, C, ...], got ", like.dim(), " axes");
  const ReadableLabels readable(labels, like.size(0), num_classes, ignore_index);
  const LayerMeans layer_means(activations);
  int64_t units = 0;
  for (const Tensor& x : activations) units += x.size(1);
  const ScalarType type = common_result_type(activations);
  Tensor loss = empty({}, type, like), layers = empty({int64_t(activations.size())}, type, like);
  Tensor index = empty({units}, type, like), maximum = empty({units}, type, like);
  Tensor rest = empty({units}, type, like), winner = empty({units}, ScalarType::Long, like);
  Tensor counts = empty({num_classes}, ScalarType::Long, like);
  const SelectivityParams params{
      readable.labels,
      eps,
      counts.mutable_data_ptr<int64_t>(),
      {dtype_of(type, "result"), loss.mutable_data_ptr(), layers.mutable_data_ptr(),
       index.mutable_data_ptr(), maximum.mutable_data_ptr(), rest.mutable_data_ptr(),
       winner.mutable_data_ptr<int64_t>()}};
  Device::selectivity(params, layer_means, readable.tensor);
  return {loss, layers, index, maximum, rest, winner, counts};
}

inline void check_per_unit(const Tensor& tensor, const char* name, int64_t units, ScalarType dtype,
                           const Tensor& like) {
  check(tensor.numel() == units, name, " must have ", units, " elements, got ", tensor.numel());
  check(tensor.scalar_type() == result_type(dtype), name, " must be ", result_name(dtype), ", got ",
        DtypeName{tensor.scalar_type()});
  check_same_device(tensor, like, name);
}

inline void check_per_unit(const std::optional<Tensor>& tensor, const char* name, int64_t units,
                           ScalarType dtype, const Tensor& like) {
  if (tensor) check_per_unit(*tensor, name, units, dtype, like);
}

inline void check_layers(const std::vector<int64_t>& units, const std::vector<int64_t>& positions,
                         int64_t all_units) {
  check(units.size() == positions.size(), "units and positions must have one entry per layer, got ",
        units.size(), " and ", positions.size());
  int64_t total = 0;
  for (size_t l = 0; l < units.size(); ++l) {
    check(units[l] >= 0 && units[l] <= all_units - total && positions[l] >= 0,
          "units must add up to ", all_units, ", positions be at least 0");
    total += units[l];
  }
  check(total == all_units, "units must add up to ", all_units, ", got ", total);
}

inline std::optional<Tensor> dense(const std::optional<Tensor>& tensor) {
  if (!tensor) return std::nullopt;
  return torch::stable::contiguous(*tensor);
}

inline const void* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr() : nullptr;
}

template <typename Device>
Tensor selectivity_backward(const std::optional<Tensor>& grad_loss,
                            const std::optional<Tensor>& grad_index,
                            const std::optional<Tensor>& grad_maximum,
                            const std::optional<Tensor>& grad_rest, const Tensor& maximum,
                            const Tensor& rest, const Tensor& winner, const Tensor& counts,
                            const Tensor& labels, const std::vector<int64_t> units,
                            const std::vector<int64_t> positions, double eps, int64_t ignore_index,
                            ScalarType dtype) {
  const int64_t all_units = maximum.numel();
  const DType computed = dtype_of(dtype, "dtype");
  check_labels(labels, maximum);
  check(counts.dim() == 1 && counts.scalar_type() == ScalarType::Long &&
            winner.scalar_type() == ScalarType::Long && winner.numel() == all_units,
        "counts and winner must be int64, winner one per unit, got ", KindOf{counts}, " and ",
        KindOf{winner});
  check_num_classes(counts.size(0));
  check_same_device(winner, maximum, "winner");
  check_same_device(counts, maximum, "counts");
  check_per_unit(grad_loss, "grad_loss", 1, dtype, maximum);
  check_per_unit(grad_index, "grad_index", all_units, dtype, maximum);
  check_per_unit(grad_maximum, "grad_maximum", all_units, dtype, maximum);
  check_per_unit(grad_rest, "grad_rest", all_units, dtype, maximum);
  check_per_unit(maximum, "maximum", all_units, dtype, maximum);
  check_per_unit(rest, "rest", all_units, dtype, maximum);
  check_layers(units, positions, all_units);
  std::vector<LayerExtent> layers;
  for (size_t l = 0; l < units.size(); ++l) layers.push_back({units[l], positions[l]});

  const int64_t samples = labels.size(0);
  const ReadableLabels readable(labels, samples, counts.size(0), ignore_index);
  const auto loss = dense(grad_loss), index = dense(grad_index);
  const auto of_maximum = dense(grad_maximum), of_rest = dense(grad_rest);
  const Tensor maxima = torch::stable::contiguous(maximum);
  const Tensor rests = torch::stable::contiguous(rest);
  const Tensor winners = torch::stable::contiguous(winner);
  const Tensor dense_counts = torch::stable::contiguous(counts);
  Tensor grad_sums = empty({samples, all_units}, dtype, maximum);
  const SelectivityBackwardParams params{
      {data_or_null(loss), data_or_null(index), data_or_null(of_maximum), data_or_null(of_rest)},
      maxima.const_data_ptr(),
      rests.const_data_ptr(),
      winners.const_data_ptr<int64_t>(),
      dense_counts.const_data_ptr<int64_t>(),
      readable.labels,
      eps,
      all_units,
      computed,
      grad_sums.mutable_data_ptr()};
  Device::selectivity_backward(params, layers, readable.tensor);
  return grad_sums;
}

template <typename Device>
void register_selectivity(torch::stable::detail::StableLibrary& m) {
  m.impl("class_means", TORCH_BOX(&class_means<Device>));
  m.impl("class_means_backward", TORCH_BOX(&class_means_backward<Device>));
  m.impl("selectivity", TORCH_BOX(&selectivity<Device>));
  m.impl("selectivity_backward", TORCH_BOX(&selectivity_backward<Device>));
}

}  // namespace selkern
