// Arithmetic of attack steps on V: a vector of floats on the CPU, one float on a GPU. Masks are
// what comparisons of V give. To be included where code for vectors may be compiled.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/exact_sum.h"
#include "common/host_device.h"

namespace selkern {

// An unsigned integer of so many bytes.
template <int bytes>
using Word =
    std::conditional_t<bytes == 2, uint16_t, std::conditional_t<bytes == 4, uint32_t, uint64_t>>;

// alpha in the direction of the gradient, of which NaN has none.
template <typename V>
SELKERN_HOST_DEVICE static inline V signed_step(V gradient, V alpha) {
  return gradient > 0 ? alpha : (gradient < 0 ? -alpha : V{});
}

// NaN in values stays.
template <typename V>
SELKERN_HOST_DEVICE static inline V clamp(V values, V low, V high) {
  const V raised = values < low ? low : values;
  return raised > high ? high : raised;
}

template <typename V>
SELKERN_HOST_DEVICE static inline V finite_or_zero(V values, V largest) {
  return (values <= largest) & (values >= -largest) ? values : V{};
}

// A step leads to a target, whose value is rounded to y, a number of the tensors' type; is_wrong(y)
// says that y has to be the next such number in the direction of the image x.

template <typename V>
struct LinfStep {
  using Target = V;

  V eps;
  V alpha;

  // NaN in x must not vanish.
  SELKERN_HOST_DEVICE inline Target target(V adv, V gradient, V x) const {
    const V stepped = clamp<V>(adv + signed_step(gradient, alpha), x - eps, x + eps);
    return x == x ? stepped : x;
  }
  SELKERN_HOST_DEVICE static inline V value(const Target& target) { return target; }

  // Whether y is further than eps from x, however their difference rounds.
  SELKERN_HOST_DEVICE inline auto is_wrong(V y, V x, const Target&) const {
    const ExactSum<V> difference = exact_sum<V>(y, -x);
    const V distance = difference.value < 0 ? -difference.value : difference.value;
    const V rest = difference.value < 0 ? -difference.rest : difference.rest;
    return (distance > eps) | ((distance == eps) & (rest > 0));
  }
};

// Product::of(a, b) is a * b, rounded: never a part of an FMA.
template <typename V, typename Product>
struct L2Step {
  using Target = ExactSum<V>;

  V step;
  V scale;
  bool projects;
  V largest;  // finite gradient

  SELKERN_HOST_DEVICE inline Target target(V adv, V gradient, V x) const {
    const V move = Product::of(finite_or_zero(gradient, largest), step);
    if (!projects) return exact_sum<V>(adv, move);
    return exact_sum<V>(x, Product::of(adv - x + move, scale));
  }
  SELKERN_HOST_DEVICE static inline V value(const Target& target) { return target.value; }

  // Whether y is further from x than the target, exactly.
  SELKERN_HOST_DEVICE inline auto is_wrong(V y, V x, const Target& target) const {
    const V rounded_off = target.value - y;
    const V rest = rounded_off == 0 ? target.rest : rounded_off;
    return ((rest < 0) & (y > x)) | ((rest > 0) & (y < x));
  }
};

// The bits of the float next to y in the direction of x, which differs from y. sign_bit: of such a
// float; is_below: whether y is below x.
template <typename Bits, typename Mask>
SELKERN_HOST_DEVICE static inline Bits next_towards(Bits y, Bits x, Bits sign_bit, Mask is_below) {
  const auto grows = ((y & sign_bit) == 0) == is_below;
  const Bits next = grows ? Bits(y + 1) : Bits(y - 1);
  return (y & ~sign_bit) == 0 ? Bits((x & sign_bit) | 1) : next;
}

}  // namespace selkern
