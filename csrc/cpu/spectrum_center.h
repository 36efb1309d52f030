// Centering: samples less the mean of each unit.
#pragma once

#include "cpu/row_sums.h"
#include "cpu/spectrum_work.h"
#include "cpu/vectors.h"

namespace selkern::cpu::SELKERN_ISA {

// The means of units in two parts, so that one far from zero is exact beside the spread around it.
template <typename R>
struct Means {
  R* high;
  R* low;

  inline Means operator+(int64_t units) const { return {high + units, low + units}; }
};

template <typename R>
struct MeansOfBlock {
  R high[block_columns], low[block_columns];

  operator Means<R>() { return {high, low}; }
};

template <typename T>
struct Centering {
  using R = Result<T>;

  const Samples& samples;

  const T* row(int64_t matrix, int64_t sample) const {
    return static_cast<const T*>(samples.x) + matrix * samples.matrix_stride +
           sample * samples.sample_stride;
  }

  // Of `width` units from `first` on, at most block_columns.
  void mean_of(int64_t matrix, int64_t first, int64_t width, const Means<R>& means) const {
    double mean[block_columns];
    const auto row_at = [&](int64_t n) {
      const T* x = row(matrix, n) + first;
      prefetch_row(x, width);
      return x;
    };
    sum_rows<T>(row_at, samples.samples, width, mean);
    // Divided, not multiplied by the reciprocal, so that equal samples leave exactly zero.
    const double count = samples.samples;
    for (int64_t d = 0; d < width; d += float64_lanes) store(mean + d, load(mean + d) / count);
    for (int64_t d = 0; d < width; ++d) {
      means.high[d] = R(mean[d]);
      means.low[d] = R(mean[d] - means.high[d]);
    }
    if constexpr (std::is_same_v<T, double>) rest_of(matrix, first, width, means);
  }

  // The sum of float64 values is rounded: what is left of it once the mean is taken off.
  void rest_of(int64_t matrix, int64_t first, int64_t width, const Means<double>& means) const {
    double rest[block_columns] = {};
    for (int64_t n = 0; n < samples.samples; ++n) {
      const double* x = row(matrix, n) + first;
      for (int64_t d = 0; d < width; ++d) rest[d] += x[d] - means.high[d];
    }
    for (int64_t d = 0; d < width; ++d) means.low[d] = rest[d] / samples.samples;
  }

  // One row of a few units.
  inline void subtract(const T* x, const Means<R>& means, R* centered, int64_t width) const {
    if constexpr (std::is_same_v<T, float>) {
      using Values = FullVector<float>;
      const float scale = samples.scale;
      for (int64_t d = 0; d < width; d += full_lanes<float>) {
        const auto at = [&](const float* values) {
          return load_first<float, Values>(values + d, width - d);
        };
        const Values difference = (at(x) - at(means.high)) - at(means.low);
        store_first(centered + d, difference * scale, width - d);
      }
    } else {
      for (int64_t d = 0; d < width; d += float64_lanes) {
        const auto at = [&](const R* values) {
          return widen<R>(load_first(values + d, width - d));
        };
        const Float64 values = widen<T>(load_first(x + d, width - d));
        const Float64 difference = (values - at(means.high)) - at(means.low);
        store_first(centered + d, narrow<R>(difference * samples.scale), width - d);
      }
    }
  }
};

template <typename T>
struct Center {
  static void run(const CenterParams& params, int64_t begin, int64_t end) {
    const Centering<T> centering{params};
    MeansOfBlock<Result<T>> means;
    auto* centered = static_cast<Result<T>*>(params.centered);
    for (int64_t matrix = begin; matrix < end; ++matrix) {
      centering.mean_of(matrix, 0, params.units, means);
      for (int64_t n = 0; n < params.samples; ++n) {
        centering.subtract(centering.row(matrix, n), means,
                           centered + (matrix * params.samples + n) * params.units, params.units);
      }
    }
  }
};

inline void center(const CenterParams& params, int64_t begin, int64_t end) {
  run_for<Center>(params.dtype, params, begin, end);
}

template <typename R>
inline Means<R> means_at(void* means, const Samples& samples, int64_t matrix) {
  R* high = static_cast<R*>(means) + 2 * matrix * samples.units;
  return {high, high + samples.units};
}

template <typename T>
struct SampleMeans {
  static void run(const SampleMeansWork& work, int64_t begin, int64_t end) {
    const Samples& samples = work.samples;
    const int64_t blocks = column_blocks(samples.units);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t matrix = item / blocks, first = item % blocks * block_columns;
      Centering<T>{samples}.mean_of(matrix, first, std::min(samples.units - first, block_columns),
                                    means_at<Result<T>>(work.means, samples, matrix) + first);
    }
  }
};

inline void sample_means(const SampleMeansWork& work, int64_t begin, int64_t end) {
  run_for<SampleMeans>(work.samples.dtype, work, begin, end);
}

template <typename T>
struct SubtractMeans {
  static void run(const CenterWork& work, int64_t begin, int64_t end) {
    const CenterParams& params = work.center;
    const Centering<T> centering{params};
    auto* centered = static_cast<Result<T>*>(params.centered);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t matrix = item / work.row_blocks();
      const int64_t first = item % work.row_blocks() * CenterWork::block_rows;
      const int64_t last = std::min(params.samples, first + CenterWork::block_rows);
      const Means<Result<T>> means = means_at<Result<T>>(work.means, params, matrix);
      for (int64_t n = first; n < last; ++n) {
        centering.subtract(centering.row(matrix, n), means,
                           centered + (matrix * params.samples + n) * params.units, params.units);
      }
    }
  }
};

inline void subtract_means(const CenterWork& work, int64_t begin, int64_t end) {
  run_for<SubtractMeans>(work.center.dtype, work, begin, end);
}

}  // namespace selkern::cpu::SELKERN_ISA
