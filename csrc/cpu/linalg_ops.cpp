#include "linalg_ops.h"

#include "cpu/capability.h"
#include "cpu/parallel.h"

namespace selkern::cpu {
namespace {

constexpr int64_t few_groups = 8;

struct Cpu {
  static void solve(const EigensolverParams& params, const Tensor&) {
    const int64_t element = params.dtype == DType::float64 ? 8 : 4;
    const int64_t lanes = kernels().vector_bytes / element;
    const int64_t groups = (params.batch + lanes - 1) / lanes;
    const int64_t row_cost = params.size * params.size * lanes;
    const bool wants_vectors = params.eigenvectors != nullptr;
    // With few groups, threads share the rows of their eigenvectors.
    const bool has_few = wants_vectors && groups < few_groups;
    std::vector<EigensolverGroup> shared(has_few ? groups : 0);
    const EigensolverWork work{params, shared.data()};
    parallel_items(has_few ? kernels().eigenvalues : kernels().eigensystems, work, groups,
                   row_cost * params.size);
    if (has_few) {
      parallel_items(kernels().eigenvectors, work, groups * work.row_blocks(),
                     row_cost * EigensolverWork::block_rows);
    }
    if (wants_vectors) {
      parallel_items(kernels().unit_columns, work, params.batch, params.size * params.size);
    }
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(selkern, CPU, m) { register_linalg<Cpu>(m); }

}  // namespace selkern::cpu
