#include "attacks_ops.h"

#include "cpu/capability.h"
#include "cpu/parallel.h"

namespace selkern::cpu {
namespace {

// Lines that are not read first are written fastest past the caches, unless the system has yet to
// hand out their page, which it clears there.
bool writes_past_caches(const PgdStepParams& params) {
  constexpr int64_t cached_elements = 1 << 23;
  const bool is_read =
      params.out == params.adv || params.out == params.grad || params.out == params.images;
  return !is_read && !params.out_is_new && params.samples * params.elements > cached_elements;
}

struct Cpu {
  static void pgd_step(const PgdStepParams& params, const Tensor&) {
    PgdStepWork work{params, nullptr, writes_past_caches(params)};
    if (params.norm == Norm::linf) {
      const int64_t blocks = PgdStepWork::blocks_of(params.samples * params.elements);
      return parallel_items(kernels().pgd_step, work, blocks, PgdStepWork::block_elements);
    }
    const int64_t blocks = params.samples * work.sample_blocks();
    std::vector<L2Sums<double>> sums(blocks);
    work.sums = sums.data();
    if (params.samples >= torch::stable::get_num_threads()) {
      return parallel_items(kernels().pgd_step, work, params.samples, 2 * params.elements);
    }
    parallel_items(kernels().l2_sums, work, blocks, PgdStepWork::block_elements);
    parallel_items(kernels().l2_step, work, blocks, PgdStepWork::block_elements);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(selkern, CPU, m) { register_attacks<Cpu>(m); }

}  // namespace selkern::cpu
