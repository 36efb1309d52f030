// The operators of the attacks family, for a Device that runs their kernels:
//   static void pgd_step(const PgdStepParams&, const Tensor& adv);
// It is not called without elements.
#pragma once

#include "common/attacks.h"
#include "common/rounding.h"
#include "tensors.h"

namespace selkern {

struct PgdStepSettings {
  Norm norm;
  double eps;
  double alpha;
  double low;
  double high;
};

inline PgdStepSettings pgd_step_settings(int64_t norm, double eps, double alpha, double low,
                                         double high) {
  check(norm == 0 || norm == 1, "norm must be 0 (linf) or 1 (l2), got ", norm);
  check(eps >= 0 && std::isfinite(eps), "eps must be finite and at least 0, got ", eps);
  check(std::isfinite(alpha), "alpha must be finite, got ", alpha);
  check(low < high, "low must be below high, got ", low, " and ", high);
  return {norm == 0 ? Norm::linf : Norm::l2, eps, alpha, low, high};
}

inline void check_like_adv(const Tensor& x, const Tensor& adv, const char* name) {
  check_same_device(x, adv, name);
  check(sizes_of(x) == sizes_of(adv), name, " must have the shape of adv, got ", ShapeOf{x});
  check(x.scalar_type() == adv.scalar_type(), name, " must have the dtype of adv, got ",
        DtypeName{x.scalar_type()});
}

// Whether the elements of x lie in memory as those of like, without gaps.
inline bool lies_as(const Tensor& x, const Maps& like) {
  const auto layout = strided_layout(x);
  return layout && is_dense(*layout) &&
         (layout->channels_last == like.layout.channels_last || layout->units == 1 ||
          layout->positions == 1);
}

inline Tensor laid_out_as(const Maps& like, const Tensor& x) {
  if (lies_as(x, like)) return x;
  Tensor copy = empty_maps(like).tensor;
  torch::stable::copy_(copy, x);
  return copy;
}

// Whether two elements of x may share memory.
inline bool overlaps_itself(const Tensor& x) {
  std::vector<std::pair<int64_t, int64_t>> axes;  // strides and sizes
  for (int64_t axis = 0; axis < x.dim(); ++axis) {
    if (x.size(axis) > 1) axes.emplace_back(x.stride(axis), x.size(axis));
  }
  std::sort(axes.begin(), axes.end());
  int64_t extent = 1;  // of the axes before
  for (const auto& [stride, size] : axes) {
    if (stride < extent) return true;
    extent += stride * (size - 1);
  }
  return false;
}

// Memory that is written may be read for the same element alone.
inline void check_overlap(const Tensor& out, const Tensor& x, const char* name) {
  const auto begin_of = [](const Tensor& t) {
    return reinterpret_cast<uintptr_t>(t.const_data_ptr());
  };
  const uintptr_t bytes = uintptr_t(out.numel()) * out.element_size();
  const uintptr_t a = begin_of(out), b = begin_of(x);
  check(a == b || a + bytes <= b || b + bytes <= a, "out must share all of its memory with ", name,
        ", or none");
}

template <typename Device>
void pgd_step_into(const Tensor& out, const Maps& adv, const Tensor& grad, const Tensor& images,
                   bool out_is_new, const PgdStepSettings& settings) {
  if (out.numel() == 0) return;
  const DType dtype = dtype_of(out, "adv");
  const DType computed = dtype_of(result_type(out.scalar_type()), "adv");
  PgdStepParams params{};
  params.dtype = dtype;
  params.adv = adv.tensor.const_data_ptr();
  params.grad = grad.const_data_ptr();
  params.images = images.const_data_ptr();
  params.out = out.mutable_data_ptr();
  params.out_is_new = out_is_new;
  params.samples = adv.layout.samples;
  params.elements = adv.layout.units * adv.layout.positions;
  params.norm = settings.norm;
  const bool is_linf = settings.norm == Norm::linf;
  params.eps = is_linf ? rounded_down(settings.eps, computed) : settings.eps;
  // A longer l2 step leads to the same place, but its square to infinity.
  const double longest = computed == DType::float64 ? 1e150 : 1e18;
  params.alpha = is_linf ? settings.alpha : std::clamp(settings.alpha, -longest, longest);
  params.low = rounded_up(settings.low, dtype);
  params.high = rounded_down(settings.high, dtype);
  check(params.low <= params.high, "no number of the dtype lies from low ", settings.low,
        " to high ", settings.high);
  Device::pgd_step(params, out);
}

template <typename Device>
Tensor pgd_step_of(const Tensor& adv, const Tensor& grad, const Tensor& images,
                   const PgdStepSettings& settings) {
  const Maps dense = dense_maps(adv);
  const Tensor out = empty_maps(dense).tensor;
  pgd_step_into<Device>(out, dense, laid_out_as(dense, grad), laid_out_as(dense, images), true,
                        settings);
  return out;
}

template <typename Device>
Tensor pgd_step(const Tensor& adv, const Tensor& grad, const Tensor& images, int64_t norm,
                double eps, double alpha, double low, double high) {
  check_maps(adv, "adv");
  check_like_adv(grad, adv, "grad");
  check_like_adv(images, adv, "images");
  return pgd_step_of<Device>(adv, grad, images, pgd_step_settings(norm, eps, alpha, low, high));
}

template <typename Device>
void pgd_step_out(const Tensor& out, const Tensor& adv, const Tensor& grad, const Tensor& images,
                  int64_t norm, double eps, double alpha, double low, double high) {
  check_maps(adv, "adv");
  check_like_adv(grad, adv, "grad");
  check_like_adv(images, adv, "images");
  check_like_adv(out, adv, "out");
  const auto settings = pgd_step_settings(norm, eps, alpha, low, high);
  check(out.numel() == 0 || !overlaps_itself(out), "out must not be expanded or overlap itself");
  const auto layout = strided_layout(out);
  if (!layout || !is_dense(*layout)) {
    Tensor target = out;
    torch::stable::copy_(target, pgd_step_of<Device>(adv, grad, images, settings));
    return;
  }
  const Maps target{out, *layout};
  const Maps start{laid_out_as(target, adv), *layout};
  const Tensor gradient = laid_out_as(target, grad), center = laid_out_as(target, images);
  check_overlap(out, start.tensor, "adv");
  check_overlap(out, gradient, "grad");
  check_overlap(out, center, "images");
  pgd_step_into<Device>(out, start, gradient, center, false, settings);
}

template <typename Device>
void register_attacks(torch::stable::detail::StableLibrary& m) {
  m.impl("pgd_step", TORCH_BOX(&pgd_step<Device>));
  m.impl("pgd_step_out", TORCH_BOX(&pgd_step_out<Device>));
}

}  // namespace selkern
