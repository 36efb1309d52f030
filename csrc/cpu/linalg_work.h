// What the eigensolver's kernels share: groups of matrices, one a lane of a vector.
#pragma once

#include <cstdint>
#include <vector>

#include "common/divide_up.h"
#include "common/linalg.h"
#include "cpu/aligned_buffer.h"

namespace selkern::cpu {

struct EigensolverGroup {
  // The rotations of one sweep: of rows i and i + 1, for i from last - 1 down to first.
  struct Sweep {
    int64_t first;
    int64_t last;
    int64_t start;  // of its rotations among those of all sweeps

    int64_t end() const { return start + last - first; }
  };

  AlignedBuffer arrays;     // GroupArrays
  AlignedBuffer rotations;  // cosine and sine, vectors of one lane a matrix
  std::vector<Sweep> sweeps;
  bool is_finite[64];  // by lane: whether the matrix is; no register has more lanes

  void clear() { sweeps.clear(); }
};

struct EigensolverWork {
  static constexpr int64_t block_rows = 32;  // of eigenvectors, by one thread

  EigensolverParams solver;
  EigensolverGroup* groups;  // one a vector of matrices, for what comes after their eigenvalues

  int64_t row_blocks() const { return divide_up(solver.size, block_rows); }
};

}  // namespace selkern::cpu
