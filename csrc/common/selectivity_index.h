#pragma once

#include "common/host_device.h"

namespace selkern {

// Static, because files compiled for different instruction sets must not share a copy.

template <typename scalar_t>
SELKERN_HOST_DEVICE static inline bool is_dead(scalar_t maximum, scalar_t rest) {
  return maximum == 0 && rest == 0;
}

// SI = (maximum - rest) / (maximum + rest + eps). With fewer than two classes there is nothing to
// compare, but 0 * maximum keeps NaN and infinity visible.
template <typename scalar_t>
SELKERN_HOST_DEVICE static inline scalar_t selectivity_index(scalar_t maximum, scalar_t rest,
                                                             bool has_two_classes, scalar_t eps) {
  if (!has_two_classes) return 0 * maximum;
  if (is_dead(maximum, rest)) return 0;
  const scalar_t s = maximum + rest + eps;
  // Halved where the sum overflows.
  if (s - s != 0) return (maximum / 2 - rest / 2) / (maximum / 2 + rest / 2 + eps / 2);
  return (maximum - rest) / s;
}

template <typename scalar_t>
struct SelectivityIndexGradient {
  scalar_t maximum;
  scalar_t rest;
};

// Partial derivatives of SI: (2 rest + eps) / s^2 and -(2 maximum + eps) / s^2, with
// s = maximum + rest + eps. Divided by s twice, because s^2 underflows before SI does.
template <typename scalar_t>
SELKERN_HOST_DEVICE static inline SelectivityIndexGradient<scalar_t> selectivity_index_gradient(
    scalar_t maximum, scalar_t rest, bool has_two_classes, scalar_t eps) {
  if (!has_two_classes || is_dead(maximum, rest)) return {0, 0};
  const scalar_t s = maximum + rest + eps;
  if (s - s != 0) {
    const scalar_t half = maximum / 2 + rest / 2 + eps / 2;
    return {(rest + eps / 2) / half / half / 2, -(maximum + eps / 2) / half / half / 2};
  }
  return {(2 * rest + eps) / s / s, -(2 * maximum + eps) / s / s};
}

// Gradients of the largest class mean and of each other one, from those of SI, of the largest mean
// and of the mean of the others, among `present` classes.
template <typename scalar_t>
SELKERN_HOST_DEVICE static inline SelectivityIndexGradient<scalar_t> class_mean_gradient(
    scalar_t grad_index, scalar_t grad_maximum, scalar_t grad_rest, scalar_t maximum, scalar_t rest,
    scalar_t present, scalar_t eps) {
  const auto partial = selectivity_index_gradient(maximum, rest, present > 1, eps);
  const scalar_t others = present > 1 ? present - 1 : scalar_t(1);
  return {grad_maximum + grad_index * partial.maximum,
          (grad_rest + grad_index * partial.rest) / others};
}

}  // namespace selkern
