// What the operators of the selectivity family check and allocate alike on every device.
#pragma once

#include <tuple>

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

struct ClassMeansOutputs {
  Tensor means, counts;

  ClassMeansOutputs(const Tensor& x, int64_t num_classes)
      : means(empty({num_classes, x.size(1)}, result_type(x.scalar_type()), x)),
        counts(empty({num_classes}, ScalarType::Long, x)) {}
};

inline void check_class_means(const Tensor& x, const Tensor& labels, int64_t num_classes) {
  check(x.dim() == 2, "x must have shape [N, C], got ", x.dim(), " axes");
  check_labels(labels, x);
  check_num_classes(num_classes);
  dtype_of(x, "x");
}

inline void check_class_means_backward(const Tensor& grad, const Tensor& labels,
                                       const Tensor& counts, ScalarType dtype) {
  check(grad.dim() == 2 && counts.dim() == 1 && grad.size(0) == counts.size(0) &&
            counts.scalar_type() == ScalarType::Long,
        "grad must have shape [K, C] and counts be int64 [K]");
  check_num_classes(counts.size(0));
  dtype_of(dtype, "dtype");
  check(grad.scalar_type() == result_type(dtype), "grad must be ", result_name(dtype));
  check_labels(labels, grad);
  check_same_device(counts, grad, "counts");
}

// The layers' activations averaged over positions. Those that have one position are read in place;
// for the others a mean is allocated, which a kernel has yet to compute.
class LayerMeans {
 public:
  explicit LayerMeans(const std::vector<Tensor>& activations) {
    for (const Tensor& x : activations) {
      check(x.dim() >= 2, "activations must have shape [N, C, ...], got ", x.dim(), " axes");
      check(x.size(0) == activations[0].size(0),
            "activations must have the same number of samples");
      check_same_device(x, activations[0], "activations");
      dtype_of(x, "activations");
      add(x);
    }
  }

  const std::vector<Tensor>& means() const { return means_; }
  const std::vector<SpatialMeanParams>& pending() const { return pending_; }

 private:
  void add(const Tensor& x) {
    if (x.dim() == 2) {
      means_.push_back(readable_rows(x));
      return;
    }
    const Maps maps = readable_maps(x);
    Tensor mean = empty_mean(x);
    const SpatialMeanParams params = spatial_mean_params(maps, mean);
    if (mean.numel() > 0) pending_.push_back(params);
    maps_.push_back(maps.tensor);
    means_.push_back(mean);
  }

  std::vector<Tensor> maps_;  // keeps copies alive
  std::vector<Tensor> means_;
  std::vector<SpatialMeanParams> pending_;
};

inline void check_selectivity(const std::vector<Tensor>& activations, const Tensor& labels,
                              int64_t num_classes) {
  check(!activations.empty(), "activations must hold at least one tensor");
  check_labels(labels, activations[0]);
  check_num_classes(num_classes);
  check(activations[0].dim() >= 2, "activations must have shape [N, C, ...], got ",
        activations[0].dim(), " axes");
}

inline ScalarType common_result_type(const std::vector<Tensor>& tensors) {
  for (const Tensor& tensor : tensors) {
    if (tensor.scalar_type() == ScalarType::Double) return ScalarType::Double;
  }
  return ScalarType::Float;
}

using SelectivityTuple = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

struct SelectivityOutputs {
  ScalarType type;
  int64_t units;  // of all layers
  Tensor loss, layers, index, maximum, rest, winner, counts;

  SelectivityOutputs(const std::vector<Tensor>& activations, int64_t num_classes)
      : type(common_result_type(activations)),
        units(total_units(activations)),
        loss(empty({}, type, activations[0])),
        layers(empty({int64_t(activations.size())}, type, activations[0])),
        index(empty({units}, type, activations[0])),
        maximum(empty({units}, type, activations[0])),
        rest(empty({units}, type, activations[0])),
        winner(empty({units}, ScalarType::Long, activations[0])),
        counts(empty({num_classes}, ScalarType::Long, activations[0])) {}

  SelectivityTuple tuple() const { return {loss, layers, index, maximum, rest, winner, counts}; }

 private:
  static int64_t total_units(const std::vector<Tensor>& activations) {
    int64_t units = 0;
    for (const Tensor& x : activations) units += x.size(1);
    return units;
  }
};

inline void check_per_unit(const Tensor& tensor, const char* name, int64_t units, ScalarType dtype,
                           const Tensor& like) {
  check(tensor.numel() == units, name, " must have ", units, " elements, got ", tensor.numel());
  check(tensor.scalar_type() == result_type(dtype), name, " must be ", result_name(dtype));
  check_same_device(tensor, like, name);
}

inline void check_per_unit(const std::optional<Tensor>& tensor, const char* name, int64_t units,
                           ScalarType dtype, const Tensor& like) {
  if (tensor) check_per_unit(*tensor, name, units, dtype, like);
}

inline void check_layers(const std::vector<int64_t>& units, const std::vector<int64_t>& positions,
                         int64_t all_units) {
  check(units.size() == positions.size(), "units and positions must have one entry per layer");
  int64_t total = 0;
  for (size_t l = 0; l < units.size(); ++l) {
    check(units[l] >= 0 && units[l] <= all_units - total && positions[l] >= 0,
          "units must add up to ", all_units, ", positions be at least 0");
    total += units[l];
  }
  check(total == all_units, "units must add up to ", all_units, ", got ", total);
}

// What selectivity_backward was given, dtype aside.
struct SelectivityGradientInputs {
  const std::optional<Tensor>&loss, &index, &of_maximum, &of_rest;
  const Tensor &maximum, &rest, &winner, &counts, &labels;

  void check_all(ScalarType dtype) const {
    const int64_t units = maximum.numel();
    dtype_of(dtype, "dtype");
    check_labels(labels, maximum);
    check(counts.dim() == 1 && counts.scalar_type() == ScalarType::Long &&
              winner.scalar_type() == ScalarType::Long && winner.numel() == units,
          "counts and winner must be int64, winner one per unit");
    check_num_classes(counts.size(0));
    check_same_device(winner, maximum, "winner");
    check_same_device(counts, maximum, "counts");
    check_per_unit(loss, "grad_loss", 1, dtype, maximum);
    check_per_unit(index, "grad_index", units, dtype, maximum);
    check_per_unit(of_maximum, "grad_maximum", units, dtype, maximum);
    check_per_unit(of_rest, "grad_rest", units, dtype, maximum);
    check_per_unit(maximum, "maximum", units, dtype, maximum);
    check_per_unit(rest, "rest", units, dtype, maximum);
  }
};

}  // namespace selkern
