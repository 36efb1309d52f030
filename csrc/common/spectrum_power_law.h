#pragma once

#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace selkern {

// Static, because files compiled for different instruction sets must not share a copy.

// Eigenvalues up to this share of the largest are rounding.
template <typename scalar_t>
SELKERN_HOST_DEVICE static inline scalar_t rounding_tolerance() {
  return sizeof(scalar_t) == sizeof(double) ? scalar_t(1e-12) : scalar_t(2e-6);
}

// NaN stays; beside infinity, so does everything.
template <typename scalar_t>
SELKERN_HOST_DEVICE static inline scalar_t without_rounding(scalar_t eigenvalue, scalar_t largest) {
  const scalar_t threshold = rounding_tolerance<scalar_t>() * largest;
  const bool is_finite = threshold - threshold == 0;
  return is_finite && eigenvalue <= threshold ? scalar_t(0) : eigenvalue;
}

// A law that goes through `value` at rank `anchor`.
template <typename scalar_t>
struct PowerLawTarget {
  scalar_t value;
  scalar_t anchor;
  scalar_t exponent;

  SELKERN_HOST_DEVICE inline scalar_t at(int64_t rank) const {
    const scalar_t ratio = anchor / scalar_t(rank);
    return exponent == 1 ? value * ratio : value * std::pow(ratio, exponent);
  }
};

template <typename scalar_t>
struct PowerLawTerm {
  scalar_t penalty;
  scalar_t derivative;
};

// 1 / width of r^2 + max(0, r) with r = eigenvalue / target - 1, and its derivative by the
// eigenvalue.
template <typename scalar_t>
SELKERN_HOST_DEVICE static inline PowerLawTerm<scalar_t> power_law_term(scalar_t eigenvalue,
                                                                        scalar_t target,
                                                                        scalar_t width) {
  // Not the quotient less 1, which loses digits near the law.
  const scalar_t excess = (eigenvalue - target) / target;
  const scalar_t above = excess > 0 ? scalar_t(1) : scalar_t(0);
  // Not first by the target, which may be so small that float32 overflows.
  return {(excess * excess + above * excess) / width, (2 * excess + above) / width / target};
}

}  // namespace selkern
