#include "linalg_ops.h"

#include "cpu/capability.h"
#include "cpu/parallel.h"

namespace selkern::cpu {
namespace {

constexpr int64_t few_groups = 8;

struct Cpu {
  static void solve(const EigensolverParams& params, const Tensor&) {
    const Kernels& table = kernels();
    const int64_t lanes = table.vector_bytes / element_size(params.dtype);
    const int64_t groups = divide_up(params.batch, lanes);
    const int64_t row_cost = params.size * params.size * lanes;
    const bool wants_vectors = params.eigenvectors != nullptr;
    // With few groups, threads share the rows of their eigenvectors.
    const bool has_few = wants_vectors && groups < few_groups;
    std::vector<EigensolverGroup> shared(has_few ? groups : 0);
    const EigensolverWork work{params, shared.data()};
    parallel_items(has_few ? table.eigenvalues : table.eigensystems, work, groups,
                   row_cost * params.size);
    if (has_few) {
      parallel_items(table.eigenvectors, work, groups * work.row_blocks(),
                     row_cost * EigensolverWork::block_rows);
    }
    if (wants_vectors) {
      parallel_items(table.unit_columns, work, params.batch, params.size * params.size);
    }
  }
};

Tensor rayleigh_quotients(const Tensor& a, const Tensor& vectors) {
  check_matrices(a);
  check(sizes_of(vectors) == sizes_of(a) && vectors.scalar_type() == a.scalar_type(),
        "vectors must be like a, got ", KindOf{vectors});
  Tensor quotients = empty({a.size(0), a.size(1)}, a.scalar_type(), a);
  if (a.numel() == 0) return quotients;
  const Tensor matrices = torch::stable::contiguous(a);
  const Tensor columns = torch::stable::contiguous(vectors);
  const RayleighQuotientParams params{
      dtype_of(a, "a"), matrices.const_data_ptr(),   columns.const_data_ptr(), a.size(0),
      a.size(1),        quotients.mutable_data_ptr()};
  const Kernels& table = kernels();
  const int64_t panels = panels_of(params.size, panel_columns(table, params.dtype));
  parallel_items(table.rayleigh_quotients, params, params.batch * panels,
                 params.size * params.size);
  return quotients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(selkern, CPU, m) {
  register_linalg<Cpu>(m);
  m.impl("rayleigh_quotients", TORCH_BOX(&rayleigh_quotients));
}

}  // namespace selkern::cpu
