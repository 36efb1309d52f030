#pragma once

#if defined(__CUDACC__)
#define SELKERN_HOST_DEVICE __host__ __device__
#else
#define SELKERN_HOST_DEVICE
#endif

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
  return (maximum - rest) / (maximum + rest + eps);
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
  return {(2 * rest + eps) / s / s, -(2 * maximum + eps) / s / s};
}

}  // namespace selkern
