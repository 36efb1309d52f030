#pragma once

namespace selkern {

enum class DType { float16, bfloat16, float32, float64 };

}  // namespace selkern
