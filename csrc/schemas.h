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

  // Eigenvalues [B, M], ascending, of symmetric matrices a [B, M, M], float32 or float64, of which
  // the lower triangle is read; eigenvectors [B, M, M] in columns.
  m.def("eigvalsh(Tensor a) -> Tensor eigenvalues");
  m.def("eigh(Tensor a) -> (Tensor eigenvalues, Tensor eigenvectors)");
  // v^T a v / v^T v [B, M] of symmetric matrices a [B, M, M], read whole, and the columns v of
  // vectors [B, M, M]. For the CPU alone.
  m.def("rayleigh_quotients(Tensor a, Tensor vectors) -> Tensor");

  // (x - mean over N) * scale of x [B, N, D]: result [B, N, D].
  m.def("center(Tensor x, float scale) -> Tensor");
  // Of these X, either the Gram matrix X X^T [B, N, N] or X^T X [B, D, D].
  m.def("centered_product(Tensor x, float scale, bool gram) -> Tensor");
  // weights X for weights [B, N, N] of a Gram matrix, otherwise X weights with weights [B, D, D]:
  // laid out as x made contiguous, in its dtype.
  m.def("centered_matmul(Tensor x, Tensor weights, float scale, bool gram) -> Tensor");

  // Spectra [B, M], largest first, of covariances over `samples` scaled samples, from the ascending
  // eigenvalues [B, M] of their products; what is rounding is zero.
  m.def(
      "covariance_spectrum(Tensor eigenvalues, SymInt samples, int correction, float scale)"
      " -> Tensor");
  // Gradient of the samples' product, in the order of its eigenvalues, so that a product with the
  // centered, scaled samples gives that of the samples.
  m.def(
      "covariance_spectrum_backward(Tensor grad, Tensor spectrum, SymInt samples, int correction,"
      " float scale) -> Tensor");

  // Penalty [B] of spectra [B, R], largest first, against kappa / rank^exponent, and its derivative
  // [B, R]. Without kappa [B], the eigenvalue at rank `anchor` lies on the law.
  m.def(
      "power_law_penalty(Tensor spectrum, Tensor? kappa, float exponent, int anchor, SymInt width)"
      " -> (Tensor penalty, Tensor derivative)");

  // Of projected [B, N, R]: scale times the sum of squares of each column, what is rounding set to
  // zero, [B, R], largest first; and the column of each, int64 [B, R].
  m.def("basis_spectrum(Tensor projected, float scale) -> (Tensor spectrum, Tensor order)");
  // With the penalty [B] of that spectrum, and its derivative [B, R] by column.
  m.def(
      "basis_penalty(Tensor projected, Tensor? kappa, float scale, float exponent, int anchor,"
      " SymInt width) -> (Tensor penalty, Tensor spectrum, Tensor order, Tensor derivative)");

  // A step along grad from adv, projected onto the ball of radius eps around images, and onto the
  // values from low to high; norm 0 is linf, 1 is l2. Laid out as adv, or as out.
  m.def(
      "pgd_step(Tensor adv, Tensor grad, Tensor images, int norm, float eps, float alpha,"
      " float low, float high) -> Tensor");
  m.def(
      "pgd_step_out(Tensor(a!) out, Tensor adv, Tensor grad, Tensor images, int norm, float eps,"
      " float alpha, float low, float high) -> ()");
}

}  // namespace selkern
