// How far a spectrum is from a power law, by one block of threads.
#pragma once

#include <cmath>

#include "common/spectrum.h"
#include "common/spectrum_power_law.h"
#include "cuda/block.h"
#include "cuda/numeric.cuh"

namespace selkern::cuda {

// PowerLaw in the type that a kernel computes in.
template <typename T>
struct PowerLawOf {
  const T* kappa;  // [spectra], or null
  T exponent;
  T width;
  int64_t anchor;

  explicit PowerLawOf(const PowerLaw& law)
      : kappa(static_cast<const T*>(law.kappa)),
        exponent(T(law.exponent)),
        width(T(law.width)),
        anchor(law.anchor) {}
};

// value_at(rank) gives an eigenvalue to any thread, store(rank, derivative) takes what belongs to
// it; ranks count from 1. Where an eigenvalue is not finite, nothing of the spectrum is. stage: as
// many sums as there are warps.
template <typename T, int threads, typename ValueAt, typename Store>
__device__ __forceinline__ void penalise(const PowerLawOf<T>& law, int64_t spectrum, int64_t ranks,
                                         bool is_finite, ValueAt value_at, Store store,
                                         CompensatedSum<T>* stage, T* penalty) {
  constexpr int warps = threads / warp_threads;
  const bool has_kappa = law.kappa != nullptr;
  const T at_anchor = has_kappa ? law.kappa[spectrum] : value_at(law.anchor);
  is_finite = is_finite && at_anchor - at_anchor == 0;
  const PowerLawTarget<T> target{at_anchor, has_kappa ? T(1) : T(law.anchor), law.exponent};
  auto sum = CompensatedSum<T>{};
  for (int64_t rank = 1 + threadIdx.x; rank <= ranks; rank += threads) {
    const T eigenvalue = value_at(rank);
    T derivative = is_finite ? T(0) : T(NAN);
    if (is_finite && rank > law.anchor && eigenvalue > 0 && at_anchor > 0) {
      const PowerLawTerm<T> term = power_law_term(eigenvalue, target.at(rank), law.width);
      sum.add(term.penalty);
      derivative = term.derivative;
    }
    store(rank, derivative);
  }
  const int lane = int(threadIdx.x) % warp_threads, warp = int(threadIdx.x) / warp_threads;
  add_lanes(sum, warp_threads);
  if (lane == 0) stage[warp] = sum;
  __syncthreads();
  if (warp > 0) return;
  sum = lane < warps ? stage[lane] : CompensatedSum<T>{};
  add_lanes(sum, warps);
  if (lane == 0) penalty[spectrum] = is_finite ? sum.value() : T(NAN);
}

}  // namespace selkern::cuda
