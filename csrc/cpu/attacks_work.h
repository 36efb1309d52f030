#pragma once

#include "common/attacks.h"
#include "common/divide_up.h"

namespace selkern::cpu {

struct PgdStepWork {
  static constexpr int64_t block_elements = 8192;

  PgdStepParams params;
  L2Sums<double>* sums;  // l2: [samples, blocks of a sample]
  bool past_caches;      // whether the result is written to memory directly

  // Of elements that are worked on together.
  static int64_t blocks_of(int64_t elements) { return divide_up(elements, block_elements); }
  int64_t sample_blocks() const { return blocks_of(params.elements); }
};

}  // namespace selkern::cpu
