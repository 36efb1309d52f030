#include "linalg_ops.h"

#include "cpu/capability.h"
#include "cpu/parallel.h"

namespace selkern::cpu {
namespace {

// Workspace of the groups that are in work at once, at most.
constexpr int64_t most_workspace_bytes = int64_t(1) << 26;

struct Cpu {
  static void solve(const EigensolverParams& params, const Tensor&) {
    const int64_t element = params.dtype == DType::float64 ? 8 : 4;
    const int64_t lanes = kernels().vector_bytes / element;
    const int64_t groups = (params.batch + lanes - 1) / lanes;
    const int64_t entries = params.size * params.size;
    const int64_t group_bytes = entries * kernels().vector_bytes * 3;
    const int64_t together =
        std::clamp<int64_t>(most_workspace_bytes / group_bytes,
                            std::min<int64_t>(groups, torch::stable::get_num_threads()), groups);
    for (int64_t first = 0; first < groups; first += together) {
      solve_groups(params, first * lanes, std::min(together, groups - first), lanes);
    }
    if (params.eigenvectors == nullptr) return;
    parallel_items(kernels().unit_columns, EigensolverWork{params, 0, nullptr}, params.batch,
                   entries);
  }

 private:
  static void solve_groups(const EigensolverParams& params, int64_t first_matrix, int64_t count,
                           int64_t lanes) {
    std::vector<EigensolverGroup> groups(count);
    const EigensolverWork work{params, first_matrix, groups.data()};
    const int64_t row_cost = params.size * params.size * lanes;
    parallel_items(kernels().eigenvalues, work, count, row_cost * params.size);
    if (params.eigenvectors == nullptr) return;
    parallel_items(kernels().eigenvectors, work, count * work.row_blocks(),
                   row_cost * EigensolverWork::block_rows);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(selkern, CPU, m) { register_linalg<Cpu>(m); }

}  // namespace selkern::cpu
