#pragma once

namespace selkern {

enum class DType { float16, bfloat16, float32, float64 };

// Static, because files compiled for different instruction sets must not share a copy.
static constexpr int element_size(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

}  // namespace selkern
