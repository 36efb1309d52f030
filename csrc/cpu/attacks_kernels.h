// Steps of attacks. Included by kernel_table.h.
#pragma once

#include "common/attacks_arithmetic.h"
#include "cpu/elements.h"
#include "cpu/lanes.h"
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

  // Block `index` of `elements` elements from `first` on.
  static PgdBlock of(const PgdStepParams& params, int64_t first, int64_t elements, int64_t index) {
    const int64_t begin = index * PgdStepWork::block_elements;
    const PgdBlock all{static_cast<const T*>(params.adv) + first,
                       static_cast<const T*>(params.grad) + first,
                       static_cast<const T*>(params.images) + first,
                       static_cast<T*>(params.out) + first, elements};
    return all.part(begin, std::min(elements, begin + PgdStepWork::block_elements));
  }

  PgdBlock part(int64_t begin, int64_t end) const {
    return {adv + begin, grad + begin, images + begin, out + begin, end - begin};
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

template <typename T>
using StepVector = FullVector<typename Arithmetic<T>::Scalar>;

template <typename T, bool past_caches, typename Step>
inline void step_block(const PgdStepParams& params, const Step& step, const PgdBlock<T>& block) {
  using E = Arithmetic<T>;
  using V = StepVector<T>;
  using Scalar = typename E::Scalar;
  const V low = V{} + Scalar(params.low), high = V{} + Scalar(params.high);
  block.for_each(E::count, [&](int64_t i, int64_t rest) {
    const auto image = load_first<T, typename E::Stored>(block.images + i, rest);
    const V x = E::widened(image);
    const auto target = step.target(E::load(block.adv + i, rest), E::load(block.grad + i, rest), x);
    const auto rounded = E::narrowed(Step::value(target));
    const auto inside =
        Rounding<T, V>::towards(rounded, image, step.is_wrong(E::widened(rounded), x, target));
    const V result = clamp<V>(E::widened(inside), low, high);
    if (past_caches && rest >= E::count) {
      store_past_caches(block.out + i, E::narrowed(result));
    } else {
      E::store(block.out + i, result, rest);
    }
  });
  if (past_caches) store_fence();
}

template <typename T, typename Step>
inline void step_block(const PgdStepWork& work, const Step& step, const PgdBlock<T>& block) {
  const bool is_aligned = reinterpret_cast<uintptr_t>(block.out) % SELKERN_VECTOR_BYTES == 0;
  if (work.past_caches && is_aligned) return step_block<T, true>(work.params, step, block);
  step_block<T, false>(work.params, step, block);
}

template <typename T>
struct LinfStepOfBlocks {
  static void run(const PgdStepWork& work, int64_t begin, int64_t end) {
    using V = StepVector<T>;
    using Scalar = typename Arithmetic<T>::Scalar;
    const LinfStep<V> step{V{} + Scalar(work.params.eps), V{} + Scalar(work.params.alpha)};
    const int64_t elements = work.params.samples * work.params.elements;
    for (int64_t item = begin; item < end; ++item) {
      step_block(work, step, PgdBlock<T>::of(work.params, 0, elements, item));
    }
  }
};

// --------------------------------------------------------------------------------------------- l2

template <typename V>
inline V largest_finite() {
  return V{} + std::numeric_limits<std::decay_t<decltype(V{}[0])>>::max();
}

template <typename V>
inline double sum_of(V values) {
  double sum = 0;
  for (size_t lane = 0; lane < sizeof(V) / sizeof(values[0]); ++lane) sum += values[lane];
  return sum;
}

// Sums over the terms of each lane, in float64 after a few.
template <typename V>
struct LaneSums {
  V sum{};
  Float64 total{};

  inline void end_run() {
    if constexpr (std::is_same_v<V, Float64>) {
      total += sum;
    } else {
      Float32 halves[2];
      std::memcpy(halves, &sum, sizeof(sum));
      total += widen<float>(halves[0]) + widen<float>(halves[1]);
    }
    sum = V{};
  }
};

template <typename T>
struct L2SumsOfBlocks {
  using E = Arithmetic<T>;
  using V = StepVector<T>;
  using Scalar = typename E::Scalar;
  // So few that their rounding is covered by what l2_factors allows for.
  static constexpr int64_t float_terms = 8;

  static L2Sums<double> of(const PgdBlock<T>& block) {
    const V largest = largest_finite<V>();
    LaneSums<V> gradient, moved, both;
    for (int64_t begin = 0; begin < block.count; begin += float_terms * E::count) {
      const auto run = block.part(begin, std::min(block.count, begin + float_terms * E::count));
      run.for_each(E::count, [&](int64_t i, int64_t rest) {
        const V grad = finite_or_zero(E::load(run.grad + i, rest), largest);
        const V distance = E::load(run.adv + i, rest) - E::load(run.images + i, rest);
        gradient.sum = multiply_add<Scalar>(grad, grad, gradient.sum);
        moved.sum = multiply_add<Scalar>(distance, distance, moved.sum);
        both.sum = multiply_add<Scalar>(grad, distance, both.sum);
      });
      gradient.end_run();
      moved.end_run();
      both.end_run();
    }
    return {sum_of(gradient.total), sum_of(moved.total), sum_of(both.total)};
  }

  static void run(const PgdStepWork& work, int64_t begin, int64_t end) {
    const int64_t elements = work.params.elements, blocks = work.sample_blocks();
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item / blocks * elements;
      work.sums[item] = of(PgdBlock<T>::of(work.params, first, elements, item % blocks));
    }
  }
};

struct RoundedProduct {
  template <typename V>
  static inline V of(V a, V b) {
    return a * b;
  }
};

template <typename T>
struct L2StepOfBlocks {
  using V = StepVector<T>;
  using Scalar = typename Arithmetic<T>::Scalar;

  static L2Step<V, RoundedProduct> step_of(const PgdStepWork& work, int64_t sample) {
    const int64_t blocks = work.sample_blocks();
    const L2Sums<double>* of_blocks = work.sums + sample * blocks;
    const auto total = [=](double L2Sums<double>::* part) {
      double plain = 0, sum = 0, lost = 0;
      for (int64_t block = 0; block < blocks; ++block) {
        plain += of_blocks[block].*part;
        add_compensated(of_blocks[block].*part, sum, lost);
      }
      // What rounding took from an infinite sum is not a number.
      return sum == sum ? sum : plain;
    };
    const L2Sums<double> sums{total(&L2Sums<double>::gradient), total(&L2Sums<double>::moved),
                              total(&L2Sums<double>::both)};
    constexpr double rounding = std::numeric_limits<Scalar>::epsilon();
    const auto factors = l2_factors(sums, work.params.eps, work.params.alpha, rounding);
    return {V{} + Scalar(factors.step), V{} + Scalar(factors.scale), factors.projects,
            largest_finite<V>()};
  }

  static void run(const PgdStepWork& work, int64_t begin, int64_t end) {
    const int64_t elements = work.params.elements, blocks = work.sample_blocks();
    for (int64_t item = begin; item < end;) {
      const int64_t sample = item / blocks, end_of_sample = std::min(end, (sample + 1) * blocks);
      const auto step = step_of(work, sample);
      for (; item < end_of_sample; ++item) {
        step_block(work, step,
                   PgdBlock<T>::of(work.params, sample * elements, elements, item % blocks));
      }
    }
  }
};

inline void l2_sums(const PgdStepWork& work, int64_t begin, int64_t end) {
  run_for<L2SumsOfBlocks>(work.params.dtype, work, begin, end);
}

inline void l2_step(const PgdStepWork& work, int64_t begin, int64_t end) {
  run_for<L2StepOfBlocks>(work.params.dtype, work, begin, end);
}

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
