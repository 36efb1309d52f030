#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/dtype.h"

namespace selkern {

// The largest number of dtype that is no larger than value.
inline double rounded_down(double value, DType dtype) {
  if (dtype == DType::float64 || !std::isfinite(value) || value == 0) return value;
  struct Format {
    int digits;  // of the significand
    int lowest;  // exponent of the smallest number above zero
    double largest;
  };
  const Format format = dtype == DType::float16    ? Format{11, -24, 65504}
                        : dtype == DType::bfloat16 ? Format{8, -133, 0x1.fep127}
                                                   : Format{24, -149, 0x1.fffffep127};
  if (value > format.largest) return format.largest;
  if (value < -format.largest) return -std::numeric_limits<double>::infinity();
  int exponent = 0;
  std::frexp(value, &exponent);
  const int spacing = std::max(exponent - format.digits, format.lowest);
  return std::ldexp(std::floor(std::ldexp(value, -spacing)), spacing);
}

inline double rounded_up(double value, DType dtype) { return -rounded_down(-value, dtype); }

}  // namespace selkern
