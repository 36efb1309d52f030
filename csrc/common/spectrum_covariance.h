#pragma once

#include <cstdint>

#include "common/spectrum_power_law.h"

namespace selkern {

// Eigenvalue `rank`, counted from 0, of a covariance: from those of the product of its samples,
// in ascending order, times `factor`.
template <typename scalar_t>
SELKERN_HOST_DEVICE static inline scalar_t covariance_eigenvalue(const scalar_t* eigenvalues,
                                                                 int64_t size, int64_t rank,
                                                                 int64_t samples, scalar_t factor) {
  const scalar_t largest = eigenvalues[size - 1];
  const scalar_t value = without_rounding(eigenvalues[size - 1 - rank], largest) * factor;
  // The mean has taken one rank. NaN stays.
  return rank + 1 < samples ? value : value * 0;
}

// What is rounding, and set to zero, has no gradient.
template <typename scalar_t>
SELKERN_HOST_DEVICE static inline scalar_t covariance_eigenvalue_backward(scalar_t grad,
                                                                          scalar_t eigenvalue,
                                                                          scalar_t factor) {
  return eigenvalue == 0 ? scalar_t(0) : grad * factor;
}

}  // namespace selkern
