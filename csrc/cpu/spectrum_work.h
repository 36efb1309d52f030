// What the kernels share that center samples and multiply them.
#pragma once

#include <cstdint>

#include "common/divide_up.h"
#include "common/spectrum.h"

namespace selkern::cpu {

// Matrices are packed into panels as wide as this many registers.
constexpr int64_t panel_registers = 2;

inline int64_t panels_of(int64_t columns, int64_t panel_width) {
  return divide_up(columns, panel_width);
}

// Means come in two parts, [matrices, 2, units], float64 for float64 samples, else float32.
struct SampleMeansWork {
  Samples samples;
  void* means;
};

struct CenterWork {
  static constexpr int64_t block_rows = 64;

  CenterParams center;
  void* means;

  int64_t row_blocks() const { return divide_up(center.samples, block_rows); }
};

// For a product that threads share: the means first, then the panels, then what is made of them.
struct CenteredProductWork {
  CenteredProductParams product;
  void* means;
  void* panels;  // [matrices, panels, terms, panel width], as float64 x or as float32

  // Items that pack one matrix: one panel of the samples each, or all panels of the units for as
  // many samples.
  static constexpr int64_t packed_samples = 64;
  static int64_t pack_items(const CenteredProductParams& params, int64_t panels) {
    return params.gram ? panels : divide_up(params.samples, packed_samples);
  }
  static int64_t pairs_of(int64_t panels) { return panels * (panels + 1) / 2; }
};

struct CenteredMatmulWork {
  CenteredMatmulParams matmul;
  int64_t block_rows;  // of the result, by one thread, where the weights stand on the right

  int64_t row_blocks() const { return divide_up(matmul.samples, block_rows); }
};

}  // namespace selkern::cpu
