#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace selkern {

// Static, because files compiled for different instruction sets must not share a copy.
SELKERN_HOST_DEVICE static inline int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace selkern
