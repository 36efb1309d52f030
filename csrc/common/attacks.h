#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "common/dtype.h"
#include "common/host_device.h"

// What the operators of this family ask of a device's kernels.
namespace selkern {

enum class Norm { linf, l2 };

// All four tensors are laid out alike.
struct PgdStepParams {
  DType dtype;
  const void* adv;     // [samples, elements] adjacent
  const void* grad;    // the same
  const void* images;  // the same
  void* out;           // the same; may be any of the others
  bool out_is_new;     // not written to before
  int64_t samples;
  int64_t elements;
  Norm norm;
  double eps;    // linf: of the precision that the device computes in
  double alpha;  // length of the step
  double low;    // of dtype
  double high;   // of dtype
};

// Of one sample; what is not finite in its gradient counts as zero.
template <typename R>
struct L2Sums {
  R gradient;  // sum of the squares of the gradient
  R moved;     // sum of the squares of adv - images
  R both;      // sum of the products of the two
};

// With it the step is a' = adv + step * gradient, or projected onto the ball
// a' = images + (adv - images + step * gradient) * scale.
template <typename R>
struct L2Factors {
  R step;
  R scale;
  bool projects;
};

// rounding: of elements, to the precision that the step is taken in.
template <typename R>
SELKERN_HOST_DEVICE static inline L2Factors<R> l2_factors(const L2Sums<R>& sums, R eps, R alpha,
                                                          R rounding) {
  constexpr R smallest_norm = R(1e-12);
  // Too short to count, but long enough for its square not to underflow.
  const R negligible = smallest_norm * 8 * rounding;
  const R norm = std::sqrt(sums.gradient);
  L2Factors<R> factors{};
  R squares = sums.moved, reach = std::sqrt(sums.moved);
  constexpr R most = std::numeric_limits<R>::max();
  if (norm > negligible && norm <= most && sums.moved <= most) {
    factors.step = alpha / (norm > smallest_norm ? norm : smallest_norm);
    squares += factors.step * (2 * sums.both + factors.step * sums.gradient);
    reach += (alpha < 0 ? -factors.step : factors.step) * norm;
  }
  // With what roundings may add up to: of the sums, which may cancel, and of the elements.
  const R distance = std::sqrt((squares < 0 ? R(0) : squares) + 2 * rounding * reach * reach);
  const R farthest = distance + 2 * rounding * (distance + reach);
  // NaN counts as outside, and spreads over the sample.
  factors.projects = !(farthest <= eps) || eps <= negligible;
  factors.scale = eps > negligible ? eps / farthest : farthest * 0;
  return factors;
}

}  // namespace selkern
