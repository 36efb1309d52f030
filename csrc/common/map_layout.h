#pragma once

#include <cstdint>

namespace selkern {

// A batch of feature maps [samples, units, positions], all spatial axes folded into one. Strides in
// elements. Either position_stride is 1 (planar) or unit_stride is 1 (channels-last).
struct MapLayout {
  int64_t samples;
  int64_t units;
  int64_t positions;
  int64_t sample_stride;
  int64_t unit_stride;
  int64_t position_stride;
  bool channels_last;

  int64_t numel() const { return samples * units * positions; }
};

}  // namespace selkern
