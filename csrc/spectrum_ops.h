// What the operators on spectra check and allocate alike on every device.
#pragma once

#include <tuple>

#include "common/spectrum.h"
#include "tensors.h"

namespace selkern {

inline void check_result_dtype(const Tensor& tensor, const char* name) {
  check(tensor.scalar_type() == ScalarType::Float || tensor.scalar_type() == ScalarType::Double,
        name, " must be float32 or float64, got ", DtypeName{tensor.scalar_type()});
}

// Samples [B, N, D] as kernels read them.
struct ReadableSamples {
  Tensor rows;
  Samples samples;

  ReadableSamples(const Tensor& x, double scale) : rows(checked(x)) {
    samples = {dtype_of(x, "x"), rows.const_data_ptr(),
               rows.stride(0),   rows.stride(1),
               x.size(0),        x.size(1),
               x.size(2),        scale};
  }

 private:
  static Tensor checked(const Tensor& x) {
    check(x.dim() == 3, "x must have shape [B, N, D], got ", x.dim(), " axes");
    return x.size(2) == 1 || x.stride(2) == 1 ? x : torch::stable::contiguous(x);
  }
};

template <typename Device>
Tensor center(const Tensor& x, double scale) {
  const ReadableSamples readable(x, scale);
  Tensor centered = empty(sizes_of(x), result_type(x.scalar_type()), x);
  if (x.numel() == 0) return centered;
  Device::center({readable.samples, centered.mutable_data_ptr()}, readable.rows);
  return centered;
}

// Devices answer whether they have done it: what has no kernel is a product of centered samples.
template <typename Device>
Tensor centered_product(const Tensor& x, double scale, bool gram) {
  const ReadableSamples readable(x, scale);
  const int64_t size = gram ? x.size(1) : x.size(2);
  Tensor product = empty({x.size(0), size, size}, result_type(x.scalar_type()), x);
  if (x.numel() == 0) return torch::stable::zero_(product);
  const CenteredProductParams params{readable.samples, gram, product.mutable_data_ptr()};
  if (Device::centered_product(params, readable.rows)) return product;
  const Tensor centered = center<Device>(readable.rows, scale);
  const Tensor transposed = torch::stable::transpose(centered, 1, 2);
  return gram ? torch::stable::matmul(centered, transposed)
              : torch::stable::matmul(transposed, centered);
}

template <typename Device>
Tensor centered_matmul(const Tensor& x, const Tensor& weights, double scale, bool gram) {
  const ReadableSamples readable(x, scale);
  const int64_t size = gram ? x.size(1) : x.size(2);
  check(weights.dim() == 3 && weights.size(0) == x.size(0) && weights.size(1) == size &&
            weights.size(2) == size && weights.scalar_type() == result_type(x.scalar_type()),
        "weights must hold a matrix of ", size,
        " rows and columns for each of x, in the dtype of its result, got ", KindOf{weights});
  check_same_device(weights, x, "weights");
  Tensor result = empty(sizes_of(x), x.scalar_type(), x);
  if (x.numel() == 0) return result;
  const Tensor dense = torch::stable::contiguous(weights);
  const CenteredMatmulParams params{readable.samples, gram, dense.const_data_ptr(),
                                    result.mutable_data_ptr()};
  if (Device::centered_matmul(params, readable.rows)) return result;
  const Tensor centered = center<Device>(readable.rows, scale);
  return torch::stable::to(
      gram ? torch::stable::matmul(dense, centered) : torch::stable::matmul(centered, dense),
      x.scalar_type());
}

inline void check_spectrum(const Tensor& spectrum, const char* name) {
  check(spectrum.dim() == 2, name, " must have shape [B, R], got ", spectrum.dim(), " axes");
  check_result_dtype(spectrum, name);
}

template <typename Device>
Tensor covariance_spectrum(const Tensor& eigenvalues, int64_t samples, int64_t correction,
                           double scale) {
  check_spectrum(eigenvalues, "eigenvalues");
  check(samples > correction, "samples must be more than correction, got ", samples, " and ",
        correction);
  Tensor spectrum = empty(sizes_of(eigenvalues), eigenvalues.scalar_type(), eigenvalues);
  if (eigenvalues.numel() == 0) return spectrum;
  const Tensor dense = torch::stable::contiguous(eigenvalues);
  Device::covariance_spectrum(
      {dtype_of(dense, "eigenvalues"), dense.const_data_ptr(), dense.size(0), dense.size(1),
       samples, 1 / (scale * scale * double(samples - correction)), spectrum.mutable_data_ptr()},
      dense);
  return spectrum;
}

template <typename Device>
Tensor covariance_spectrum_backward(const Tensor& grad, const Tensor& spectrum, int64_t samples,
                                    int64_t correction, double scale) {
  check_spectrum(spectrum, "spectrum");
  check(samples > correction, "samples must be more than correction, got ", samples, " and ",
        correction);
  check(sizes_of(grad) == sizes_of(spectrum) && grad.scalar_type() == spectrum.scalar_type(),
        "grad must be like spectrum, got ", KindOf{grad});
  check_same_device(grad, spectrum, "grad");
  Tensor grad_eigenvalues = empty(sizes_of(spectrum), spectrum.scalar_type(), spectrum);
  if (spectrum.numel() == 0) return grad_eigenvalues;
  const Tensor dense = torch::stable::contiguous(spectrum);
  const Tensor dense_grad = torch::stable::contiguous(grad);
  Device::covariance_spectrum_backward(
      {dtype_of(dense, "spectrum"), dense_grad.const_data_ptr(), dense.const_data_ptr(),
       dense.size(0), dense.size(1), 2 / (scale * double(samples - correction)),
       grad_eigenvalues.mutable_data_ptr()},
      dense);
  return grad_eigenvalues;
}

// kappa as kernels read it: one for each spectrum, contiguous.
class ReadablePowerLaw {
 public:
  ReadablePowerLaw(const std::optional<Tensor>& kappa, double exponent, int64_t anchor,
                   int64_t width, const Tensor& like, int64_t ranks)
      : law_{nullptr, exponent, anchor, width} {
    check(anchor >= 1 && anchor < ranks, "anchor must be at least 1 and less than the ", ranks,
          " ranks there are, got ", anchor);
    check(width >= 1, "width must be at least 1, got ", width);
    if (!kappa) return;
    check_same_device(*kappa, like, "kappa");
    check(kappa->dim() == 1 && kappa->size(0) == like.size(0) &&
              kappa->scalar_type() == like.scalar_type(),
          "kappa must hold one value for each spectrum, in its dtype, got ", KindOf{*kappa});
    kappa_ = torch::stable::contiguous(*kappa);
    law_.kappa = kappa_->const_data_ptr();
  }

  const PowerLaw& get() const { return law_; }

 private:
  std::optional<Tensor> kappa_;
  PowerLaw law_;
};

template <typename Device>
std::tuple<Tensor, Tensor> power_law_penalty(const Tensor& spectrum,
                                             const std::optional<Tensor>& kappa, double exponent,
                                             int64_t anchor, int64_t width) {
  check_spectrum(spectrum, "spectrum");
  const ReadablePowerLaw law(kappa, exponent, anchor, width, spectrum, spectrum.size(1));
  const Tensor dense = torch::stable::contiguous(spectrum);
  Tensor penalty = empty({spectrum.size(0)}, spectrum.scalar_type(), spectrum);
  Tensor derivative = empty(sizes_of(spectrum), spectrum.scalar_type(), spectrum);
  const PowerLawPenaltyParams params{dtype_of(spectrum, "spectrum"),
                                     dense.const_data_ptr(),
                                     spectrum.size(0),
                                     spectrum.size(1),
                                     law.get(),
                                     penalty.mutable_data_ptr(),
                                     derivative.mutable_data_ptr()};
  if (spectrum.numel() > 0) Device::power_law_penalty(params, dense);
  return {penalty, derivative};
}

// The spectrum of projections, and with a law the penalty too.
template <typename Device>
struct ProjectedSpectrum {
  Tensor projected, spectrum, order;

  ProjectedSpectrum(const Tensor& given, double scale)
      : projected(checked(given)),
        spectrum(empty({given.size(0), given.size(2)}, given.scalar_type(), given)),
        order(empty({given.size(0), given.size(2)}, ScalarType::Long, given)),
        params_{dtype_of(given, "projected"),
                projected.const_data_ptr(),
                given.size(0),
                given.size(1),
                given.size(2),
                scale,
                spectrum.mutable_data_ptr(),
                order.mutable_data_ptr<int64_t>(),
                {},
                nullptr,
                nullptr} {}

  void compute() const {
    if (spectrum.numel() > 0) Device::basis_spectrum(params_, projected);
  }

  void compute(const PowerLaw& law, Tensor& penalty, Tensor& derivative) {
    params_.law = law;
    params_.penalty = penalty.mutable_data_ptr();
    params_.derivative = derivative.mutable_data_ptr();
    compute();
  }

 private:
  static Tensor checked(const Tensor& projected) {
    check(projected.dim() == 3, "projected must have shape [B, N, R], got ", projected.dim(),
          " axes");
    check_result_dtype(projected, "projected");
    return torch::stable::contiguous(projected);
  }

  BasisSpectrumParams params_;
};

template <typename Device>
std::tuple<Tensor, Tensor> basis_spectrum(const Tensor& projected, double scale) {
  const ProjectedSpectrum<Device> result(projected, scale);
  result.compute();
  return {result.spectrum, result.order};
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> basis_penalty(const Tensor& projected,
                                                         const std::optional<Tensor>& kappa,
                                                         double scale, double exponent,
                                                         int64_t anchor, int64_t width) {
  ProjectedSpectrum<Device> result(projected, scale);
  const ReadablePowerLaw law(kappa, exponent, anchor, width, result.spectrum, projected.size(2));
  Tensor penalty = empty({projected.size(0)}, projected.scalar_type(), projected);
  Tensor derivative = empty(sizes_of(result.spectrum), projected.scalar_type(), projected);
  result.compute(law.get(), penalty, derivative);
  return {penalty, result.spectrum, result.order, derivative};
}

template <typename Device>
void register_spectrum(torch::stable::detail::StableLibrary& m) {
  m.impl("center", TORCH_BOX(&center<Device>));
  m.impl("centered_product", TORCH_BOX(&centered_product<Device>));
  m.impl("centered_matmul", TORCH_BOX(&centered_matmul<Device>));
  m.impl("covariance_spectrum", TORCH_BOX(&covariance_spectrum<Device>));
  m.impl("covariance_spectrum_backward", TORCH_BOX(&covariance_spectrum_backward<Device>));
  m.impl("power_law_penalty", TORCH_BOX(&power_law_penalty<Device>));
  m.impl("basis_spectrum", TORCH_BOX(&basis_spectrum<Device>));
  m.impl("basis_penalty", TORCH_BOX(&basis_penalty<Device>));
}

}  // namespace selkern
