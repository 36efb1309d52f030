// Conversions of 16-bit floating-point formats, shared by cuda_fp16.h and cuda_bf16.h.
#pragma once

#include <cstdint>

#include "simt/arithmetic.h"

namespace simt {

template <int exponent_bits>
struct NarrowFloat {
  static constexpr int fraction_bits = 15 - exponent_bits;
  static constexpr int bias = (1 << (exponent_bits - 1)) - 1;
  static constexpr uint16_t infinity = 0x7fff >> fraction_bits << fraction_bits;

  uint16_t bits;

  // Rounds to nearest, ties to even. NaN becomes the one that the GPU gives.
  static uint16_t round(double value) {
    const uint64_t all = bit_cast<uint64_t>(value), magnitude = all << 1 >> 1;
    const uint16_t sign = all >> 63 << 15;
    if (value != value) return 0x7fff;
    // Subnormal numbers have the exponent of the smallest normal ones, and no leading one.
    const int exponent = int(magnitude >> 52) - 1023;
    const int stored = exponent + bias > 1 ? exponent + bias : 1;
    if (stored > 2 * bias) return sign | infinity;
    const int dropped = 52 - fraction_bits + stored - (exponent + bias);
    if (dropped > 63) return sign;
    const uint64_t significand = magnitude << 12 >> 12 | uint64_t(1) << 52;
    const uint64_t odd = significand >> dropped & 1;
    const uint64_t rounded = (significand + (uint64_t(1) << (dropped - 1)) - 1 + odd) >> dropped;
    // A carry out of the fraction raises the exponent, up to infinity.
    return sign | uint16_t(rounded + (uint64_t(stored - 1) << fraction_bits));
  }

  static float widen(uint16_t bits) {
    const float sign = bits >> 15 ? -1.0f : 1.0f;
    const int exponent = (bits & 0x7fff) >> fraction_bits;
    const uint32_t fraction = bits & ((1u << fraction_bits) - 1);
    if (exponent == (1 << exponent_bits) - 1) {
      const uint32_t infinite = (bits >> 15 << 31) | 0x7f800000u;
      return bit_cast<float>(infinite | fraction << (23 - fraction_bits));
    }
    if (exponent == 0) return sign * ldexpf(float(fraction), 1 - bias - fraction_bits);
    const uint32_t widened = uint32_t(exponent - bias + 127) << 23;
    return sign * bit_cast<float>(widened | fraction << (23 - fraction_bits));
  }
};

}  // namespace simt
