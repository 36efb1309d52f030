#pragma once

#include "common/host_device.h"

namespace selkern {

// Static, because files compiled for different instruction sets must not share a copy.

// What rounding took from sum = a + b, exactly, of floats or of vectors of them.
template <typename V>
SELKERN_HOST_DEVICE static inline V rest_of_sum(V a, V b, V sum) {
  const V of_b = sum - a;
  return (a - (sum - of_b)) + (b - of_b);
}

// value + rest is the sum, exactly.
template <typename V>
struct ExactSum {
  V value;
  V rest;
};

template <typename V>
SELKERN_HOST_DEVICE static inline ExactSum<V> exact_sum(V a, V b) {
  const V sum = a + b;
  return {sum, rest_of_sum<V>(a, b, sum)};
}

}  // namespace selkern
