// The spectra of covariances and of projections, and the power-law penalty. Included by
// kernel_table.h.
#pragma once

#include "common/spectrum_covariance.h"
#include "common/spectrum_power_law.h"
#include "cpu/row_sums.h"
#include "cpu/vectors.h"

namespace selkern::cpu::SELKERN_ISA {

template <typename R>
inline void covariance_spectrum_of(const CovarianceSpectrumParams& params, int64_t begin,
                                   int64_t end) {
  for (int64_t matrix = begin; matrix < end; ++matrix) {
    const R* eigenvalues = static_cast<const R*>(params.eigenvalues) + matrix * params.size;
    R* spectrum = static_cast<R*>(params.spectrum) + matrix * params.size;
    for (int64_t rank = 0; rank < params.size; ++rank) {
      spectrum[rank] =
          covariance_eigenvalue(eigenvalues, params.size, rank, params.samples, R(params.factor));
    }
  }
}

inline void covariance_spectrum(const CovarianceSpectrumParams& params, int64_t begin,
                                int64_t end) {
  if (params.dtype == DType::float64) return covariance_spectrum_of<double>(params, begin, end);
  covariance_spectrum_of<float>(params, begin, end);
}

template <typename R>
inline void covariance_spectrum_backward_of(const CovarianceSpectrumBackwardParams& params,
                                            int64_t begin, int64_t end) {
  for (int64_t matrix = begin; matrix < end; ++matrix) {
    const R* grad = static_cast<const R*>(params.grad) + matrix * params.size;
    const R* spectrum = static_cast<const R*>(params.spectrum) + matrix * params.size;
    R* last = static_cast<R*>(params.grad_eigenvalues) + (matrix + 1) * params.size - 1;
    for (int64_t rank = 0; rank < params.size; ++rank) {
      last[-rank] = covariance_eigenvalue_backward(grad[rank], spectrum[rank], R(params.factor));
    }
  }
}

inline void covariance_spectrum_backward(const CovarianceSpectrumBackwardParams& params,
                                         int64_t begin, int64_t end) {
  if (params.dtype == DType::float64) {
    return covariance_spectrum_backward_of<double>(params, begin, end);
  }
  covariance_spectrum_backward_of<float>(params, begin, end);
}

// The penalty of one spectrum; derivative_at(n) is where that by its n-th value goes.
template <typename R, typename DerivativeAt>
inline R penalty_of(const PowerLaw& law, int64_t index, const R* spectrum, int64_t ranks,
                    const DerivativeAt& derivative_at) {
  const R* kappa = static_cast<const R*>(law.kappa);
  const PowerLawTarget<double> target{kappa ? kappa[index] : spectrum[law.anchor - 1],
                                      kappa ? 1.0 : double(law.anchor), law.exponent};
  double not_finite = target.value * 0;  // or 0
  for (int64_t n = 0; n < ranks; ++n) not_finite += spectrum[n] * R(0);
  double penalty = not_finite;
  for (int64_t n = 0; n < ranks; ++n) {
    const bool counts = n >= law.anchor && spectrum[n] > 0 && target.value > 0;
    const auto term = counts ? power_law_term<double>(spectrum[n], target.at(n + 1), law.width)
                             : PowerLawTerm<double>{0, 0};
    penalty += term.penalty;
    derivative_at(n) = R(term.derivative + not_finite);
  }
  return R(penalty);
}

template <typename R>
struct PowerLawPenalty {
  static void run(const PowerLawPenaltyParams& params, int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      R* derivative = static_cast<R*>(params.derivative) + s * params.ranks;
      static_cast<R*>(params.penalty)[s] =
          penalty_of(params.law, s, static_cast<const R*>(params.spectrum) + s * params.ranks,
                     params.ranks, [=](int64_t n) -> R& { return derivative[n]; });
    }
  }
};

inline void power_law_penalty(const PowerLawPenaltyParams& params, int64_t begin, int64_t end) {
  if (params.dtype == DType::float64) return PowerLawPenalty<double>::run(params, begin, end);
  PowerLawPenalty<float>::run(params, begin, end);
}

// Leaves the variances in the order of the columns.
template <typename R>
struct BasisVariances {
  static void run(const BasisSpectrumParams& params, int64_t begin, int64_t end) {
    const int64_t blocks = column_blocks(params.columns);
    double sum[block_columns];
    for (int64_t item = begin; item < end; ++item) {
      const int64_t matrix = item / blocks, first = item % blocks * block_columns;
      const int64_t width = std::min(params.columns - first, block_columns);
      const R* projected = static_cast<const R*>(params.projected) +
                           matrix * params.samples * params.columns + first;
      sum_rows<R, Square>([=](int64_t n) { return projected + n * params.columns; }, params.samples,
                          width, sum);
      R* variances = static_cast<R*>(params.spectrum) + matrix * params.columns + first;
      for (int64_t k = 0; k < width; ++k) variances[k] = R(sum[k] * params.scale);
    }
  }
};

inline void basis_variances(const BasisSpectrumParams& params, int64_t begin, int64_t end) {
  if (params.dtype == DType::float64) return BasisVariances<double>::run(params, begin, end);
  BasisVariances<float>::run(params, begin, end);
}

template <typename R>
struct BasisSpectrum {
  struct Variance {
    R value;
    int64_t column;
  };

  static void run(const BasisSpectrumParams& params, int64_t begin, int64_t end) {
    std::vector<Variance> variances(params.columns);
    for (int64_t matrix = begin; matrix < end; ++matrix) {
      R* spectrum = static_cast<R*>(params.spectrum) + matrix * params.columns;
      int64_t* order = params.order + matrix * params.columns;
      sort(spectrum, variances);
      for (int64_t k = 0; k < params.columns; ++k) {
        spectrum[k] = without_rounding(variances[k].value, variances[0].value);
        order[k] = variances[k].column;
      }
      if (params.penalty == nullptr) continue;
      R* derivative = static_cast<R*>(params.derivative) + matrix * params.columns;
      static_cast<R*>(params.penalty)[matrix] =
          penalty_of(params.law, matrix, spectrum, params.columns,
                     [=](int64_t n) -> R& { return derivative[order[n]]; });
    }
  }

  // Largest first, and the lower column of equals. If one is not finite, none is a number.
  static void sort(const R* values, std::vector<Variance>& variances) {
    R not_finite = 0;
    for (size_t k = 0; k < variances.size(); ++k) not_finite += values[k] * 0;
    for (size_t k = 0; k < variances.size(); ++k) {
      variances[k] = {values[k] + not_finite, int64_t(k)};
    }
    if (not_finite != 0) return;
    std::sort(variances.begin(), variances.end(), [](const Variance& a, const Variance& b) {
      return a.value > b.value || (a.value == b.value && a.column < b.column);
    });
  }
};

inline void basis_spectrum(const BasisSpectrumParams& params, int64_t begin, int64_t end) {
  if (params.dtype == DType::float64) return BasisSpectrum<double>::run(params, begin, end);
  BasisSpectrum<float>::run(params, begin, end);
}

}  // namespace selkern::cpu::SELKERN_ISA
