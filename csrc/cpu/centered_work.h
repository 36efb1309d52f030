// What the kernels share that multiply centred samples.
#pragma once

#include <cstdint>

#include "common/spectrum.h"

namespace selkern::cpu {

// For a product that threads share: the means first, then the panels, then what is made of them.
struct CenteredProductWork {
  CenteredProductParams product;
  void* means;    // [matrices, 2, units], in two parts, as float64 x or as float32
  void* panels;   // [matrices, panels, terms, panel width], as float64 x or as float32

  int64_t panels_of(int64_t panel_width) const {
    return (product.size() + panel_width - 1) / panel_width;
  }
  static int64_t pairs_of(int64_t panels) { return panels * (panels + 1) / 2; }
};

struct CenteredMatmulWork {
  CenteredMatmulParams matmul;
  int64_t block_rows;  // of the result, by one thread, where the weights stand on the right

  int64_t row_blocks() const { return (matmul.samples + block_rows - 1) / block_rows; }
};

}  // namespace selkern::cpu
