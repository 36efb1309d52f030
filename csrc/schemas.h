#pragma once

#include <torch/csrc/stable/library.h>

namespace selkern {

// Raw operators, without autograd: activations are [N, C, ...] with the unit axis second, labels
// int32 or int64 [N]. "result" is float64 where an activation is, otherwise float32.
inline void define_operators(torch::stable::detail::StableLibrary& m) {
  // Mean over the positions of each map: result [N, C].
  m.def("spatial_mean(Tensor x) -> Tensor");

  // y = relu(x), and the spatial mean of y.
  m.def("relu_with_mean(Tensor x) -> (Tensor y, Tensor mean)");
  m.def("relu_with_mean_(Tensor(a!) x) -> Tensor");
  // (y <= 0 ? 0 : grad_y + grad_mean / positions), laid out as y.
  m.def("relu_with_mean_backward(Tensor? grad_y, Tensor? grad_mean, Tensor y) -> Tensor");

  // Means over the samples of each class of x [N, C]: result [K, C], int64 [K].
  m.def(
      "class_means(Tensor x, Tensor labels, SymInt num_classes, int ignore_index)"
      " -> (Tensor means, Tensor counts)");
  m.def(
      "class_means_backward(Tensor grad, Tensor labels, Tensor counts, int ignore_index,"
      " ScalarType dtype) -> Tensor");

  // All layers at once; the units of the layers stand side by side in index, maximum (the largest
  // class mean), rest (the mean of the others) and winner (the class of the largest).
  m.def(
      "selectivity(Tensor[] activations, Tensor labels, SymInt num_classes, float eps,"
      " int ignore_index)"
      " -> (Tensor loss, Tensor layers, Tensor index, Tensor maximum, Tensor rest, Tensor winner,"
      " Tensor counts)");
  // Gradient of the activations' spatial sums, [N, units of all layers], in dtype.
  m.def(
      "selectivity_backward(Tensor? grad_loss, Tensor? grad_index, Tensor? grad_maximum,"
      " Tensor? grad_rest, Tensor maximum, Tensor rest, Tensor winner, Tensor counts,"
      " Tensor labels, SymInt[] units, SymInt[] positions, float eps, int ignore_index,"
      " ScalarType dtype) -> Tensor");
}

}  // namespace selkern
