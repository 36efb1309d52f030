// Steps of attacks. Included by kernel_table.h.
#pragma once

#include "common/attack_arithmetic.h"
#include "cpu/elements.h"
#include "cpu/row_sums.h"

namespace selkern::cpu::SELKERN_ISA {

// Adjacent elements of the tensors of a step.
template <typename T>
struct PgdBlock {
  const T* adv;
  const T* grad;
  const T* images;
  T* out;
  int64_t count;

  PgdBlock(const PgdStepParams& params, int64_t begin, int64_t end)
      : adv(static_cast<const T*>(params.adv) + begin),
        grad(static_cast<const T*>(params.grad) + begin),
        images(static_cast<const T*>(params.images) + begin),
        out(static_cast<T*>(params.out) + begin),
        count(end - begin) {}

  // Block `index` of `elements` elements from `first` on.
  static PgdBlock of(const PgdStepParams& params, int64_t first, int64_t elements, int64_t index) {
    const int64_t begin = index * PgdStepWork::block_elements;
    const int64_t end = std::min(elements, begin + PgdStepWork::block_elements);
    return {params, first + begin, first + end};
  }

  // Calls visit(i, elements from there on) for every step-th element.
  template <typename Visit>
  inline void for_each(int64_t step, const Visit& visit) const {
    for (int64_t i = 0; i < count; i += step) {
      prefetch(adv + i);
      prefetch(grad + i);
      prefetch(images + i);
      visit(i, count - i);
    }
  }
};

// Values of T that were rounded from V, put right.
template <typename T, typename V>
struct Rounding : Elements<T, V> {
  using E = Elements<T, V>;
  using typename E::Stored;
  using Bits = typename VectorWith<Word<sizeof(T)>, E::count>::type;
  using Mask = decltype(V{} < V{});
  using StoredMask = decltype(Bits{} < Bits{});

  static inline StoredMask narrowed_mask(Mask mask) {
    if constexpr (std::is_same_v<Mask, StoredMask>) return mask;
    if constexpr (!std::is_same_v<Mask, StoredMask>)
      return __builtin_convertvector(mask, StoredMask);
  }

  // y, where wrong the value next to it in the direction of x.
  static inline Stored towards(Stored y, Stored x, Mask wrong) {
    const Bits sign_bit = Bits{} + Word<sizeof(T)>(Word<sizeof(T)>(1) << (8 * sizeof(T) - 1));
    const Bits bits = bit_cast<Bits>(y);
    const Mask is_below = E::widened(y) < E::widened(x);
    const Bits next = next_towards(bits, bit_cast<Bits>(x), sign_bit, narrowed_mask(is_below));
    return bit_cast<Stored>(narrowed_mask(wrong) ? next : bits);
  }
};

template <typename T, bool past_caches>
inline void linf_block(const PgdStepParams& params, const PgdBlock<T>& block) {
  using E = Arithmetic<T>;
  using V = FullVector<typename E::Scalar>;
  using Scalar = typename E::Scalar;
  const V eps = V{} + Scalar(params.eps), alpha = V{} + Scalar(params.alpha);
  const V low = V{} + Scalar(params.low), high = V{} + Scalar(params.high);
  block.for_each(E::count, [&](int64_t i, int64_t rest) {
    const auto image = load_first<T, typename E::Stored>(block.images + i, rest);
    const V x = E::widened(image);
    const V stepped =
        linf_step<V>(E::load(block.adv + i, rest), E::load(block.grad + i, rest), x, eps, alpha);
    const auto rounded = E::narrowed(stepped);
    const auto inside =
        Rounding<T, V>::towards(rounded, image, is_outside<V>(E::widened(rounded), x, eps));
    const V result = clamp<V>(E::widened(inside), low, high);
    if (past_caches && rest >= E::count) {
      store_past_caches(block.out + i, E::narrowed(result));
    } else {
      E::store(block.out + i, result, rest);
    }
  });
  if (past_caches) store_fence();
}

template <typename T>
inline Float64 finite_gradient(const T* grad, int64_t count) {
  const Float64 largest = Float64{} + std::numeric_limits<double>::max();
  return finite_or_zero<Float64>(widen<T>(load_first(grad, count)), largest);
}

template <typename T>
struct L2SumsOfBlocks {
  static L2Sums<double> of(const PgdBlock<T>& block) {
    Float64 gradient{}, moved{}, both{};
    block.for_each(lanes, [&](int64_t i, int64_t rest) {
      const Float64 grad = finite_gradient(block.grad + i, rest);
      const Float64 distance =
          widen<T>(load_first(block.adv + i, rest)) - widen<T>(load_first(block.images + i, rest));
      gradient += grad * grad;
      moved += distance * distance;
      both += grad * distance;
    });
    return {sum_of(gradient), sum_of(moved), sum_of(both)};
  }

  static double sum_of(Float64 values) {
    double sum = 0;
    for (int64_t lane = 0; lane < lanes; ++lane) sum += values[lane];
    return sum;
  }

  static void run(const PgdStepWork& work, int64_t begin, int64_t end) {
    const int64_t elements = work.params.elements, blocks = work.sample_blocks();
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item / blocks * elements;
      work.sums[item] = of(PgdBlock<T>::of(work.params, first, elements, item % blocks));
    }
  }
};

inline L2Factors<double> factors_of(const PgdStepWork& work, int64_t sample) {
  const int64_t blocks = work.sample_blocks();
  L2Sums<double> sums{}, lost{};
  for (int64_t block = 0; block < blocks; ++block) {
    const L2Sums<double>& term = work.sums[sample * blocks + block];
    add_compensated(term.gradient, sums.gradient, lost.gradient);
    add_compensated(term.moved, sums.moved, lost.moved);
    add_compensated(term.both, sums.both, lost.both);
  }
  return l2_factors(sums, work.params.eps, work.params.alpha);
}

template <typename T>
struct L2StepOfBlocks {
  static void of(const PgdStepParams& params, const L2Factors<double>& factors,
                 const PgdBlock<T>& block) {
    using E = Elements<T, Float64>;
    const Float64 step = Float64{} + factors.step, scale = Float64{} + factors.scale;
    const Float64 low = Float64{} + params.low, high = Float64{} + params.high;
    const auto product = [](Float64 a, Float64 b) { return a * b; };
    block.for_each(lanes, [&](int64_t i, int64_t rest) {
      const auto image = load_first<T, typename E::Stored>(block.images + i, rest);
      const Float64 x = E::widened(image);
      const auto exact = selkern::l2_step<Float64>(E::load(block.adv + i, rest),
                                                   finite_gradient(block.grad + i, rest), x, step,
                                                   scale, factors.projects, product);
      const auto rounded = E::narrowed(exact.value);
      const auto inside =
          Rounding<T, Float64>::towards(rounded, image, is_beyond(E::widened(rounded), x, exact));
      E::store(block.out + i, clamp<Float64>(E::widened(inside), low, high), rest);
    });
  }

  static void run(const PgdStepWork& work, int64_t begin, int64_t end) {
    const int64_t elements = work.params.elements, blocks = work.sample_blocks();
    int64_t sample = -1;
    L2Factors<double> factors{};
    for (int64_t item = begin; item < end; ++item) {
      if (item / blocks != sample) factors = factors_of(work, sample = item / blocks);
      of(work.params, factors,
         PgdBlock<T>::of(work.params, sample * elements, elements, item % blocks));
    }
  }
};

inline void l2_sums(const PgdStepWork& work, int64_t begin, int64_t end) {
  run_for<L2SumsOfBlocks>(work.params.dtype, work, begin, end);
}

inline void l2_step(const PgdStepWork& work, int64_t begin, int64_t end) {
  run_for<L2StepOfBlocks>(work.params.dtype, work, begin, end);
}

template <typename T>
struct LinfStepOfBlocks {
  static void run(const PgdStepWork& work, int64_t begin, int64_t end) {
    const int64_t elements = work.params.samples * work.params.elements;
    for (int64_t item = begin; item < end; ++item) {
      const auto block = PgdBlock<T>::of(work.params, 0, elements, item);
      work.past_caches&& reinterpret_cast<uintptr_t>(block.out) % SELKERN_VECTOR_BYTES == 0
          ? linf_block<T, true>(work.params, block)
          : linf_block<T, false>(work.params, block);
    }
  }
};

inline void pgd_step(const PgdStepWork& work, int64_t begin, int64_t end) {
  if (work.params.norm == Norm::linf) {
    return run_for<LinfStepOfBlocks>(work.params.dtype, work, begin, end);
  }
  // What the sums have read is still in the cache when the step reads it again.
  const int64_t blocks = work.sample_blocks();
  for (int64_t sample = begin; sample < end; ++sample) {
    l2_sums(work, sample * blocks, (sample + 1) * blocks);
    l2_step(work, sample * blocks, (sample + 1) * blocks);
  }
}

}  // namespace selkern::cpu::SELKERN_ISA
