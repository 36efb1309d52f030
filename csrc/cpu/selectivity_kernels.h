// Class means, the selectivity index and their gradients. Included by kernel_table.h.
#pragma once

#include "common/selectivity_index.h"
#include "cpu/row_sums.h"
#include "cpu/vectors.h"

namespace selkern::cpu::SELKERN_ISA {

// Means of `width` adjacent units over the samples of one class, rounded to the result's dtype.
// mean has room for a whole number of vectors.
template <typename T>
inline void class_mean(const T* x, int64_t row_stride, const int64_t* samples, int64_t count,
                       int64_t width, double* mean) {
  sum_rows<T>([=](int64_t i) { return x + samples[i] * row_stride; }, count, width, mean);
  const double scale = 1.0 / count;
  for (int64_t c = 0; c < width; c += float64_lanes) {
    store(mean + c, widen<Result<T>>(narrow<Result<T>>(load(mean + c) * scale)));
  }
}

template <typename T>
struct ClassMeans {
  static constexpr int64_t block = 1024;

  static void run(const ClassMeansWork& work, int64_t begin, int64_t end) {
    const ClassMeansParams& params = work.params;
    const SampleOrder& order = work.order;
    double mean[block];
    for (int64_t entry = begin; entry < end; ++entry) {
      const int64_t start = order.starts[entry];
      auto* out = static_cast<Result<T>*>(params.means) + order.classes[entry] * params.units;
      for (int64_t first = 0; first < params.units; first += block) {
        const int64_t width = std::min(params.units - first, block);
        class_mean(static_cast<const T*>(params.x) + first, params.row_stride,
                   order.samples + start, order.starts[entry + 1] - start, width, mean);
        for (int64_t c = 0; c < width; c += float64_lanes) {
          store_first(out + first + c, narrow<Result<T>>(load(mean + c)), width - c);
        }
      }
    }
  }
};

inline void class_means(const ClassMeansWork& work, int64_t begin, int64_t end) {
  run_for<ClassMeans>(work.params.dtype, work, begin, end);
}

template <typename T>
struct ClassMeansBackward {
  static void run(const ClassMeansBackwardWork& work, int64_t begin, int64_t end) {
    const ClassMeansBackwardParams& params = work.params;
    for (int64_t n = begin; n < end; ++n) {
      T* grad_x = static_cast<T*>(params.grad_x) + n * params.units;
      const int64_t label = work.classes[n];
      if (label < 0) {
        std::memset(grad_x, 0, params.units * sizeof(T));
        continue;
      }
      const double scale = 1.0 / params.counts[label];
      const auto* grad = static_cast<const Result<T>*>(params.grad) + label * params.units;
      for (int64_t c = 0; c < params.units; c += float64_lanes) {
        const int64_t width = params.units - c;
        const Float64 row = widen<Result<T>>(load_first(grad + c, width));
        store_first(grad_x + c, narrow<T>(row * scale), width);
      }
    }
  }
};

inline void class_means_backward(const ClassMeansBackwardWork& work, int64_t begin, int64_t end) {
  run_for<ClassMeansBackward>(work.params.dtype, work, begin, end);
}

// Largest class mean, its class, and the sum of the others, of one block of units.
struct Extremes {
  double maximum[SelectivityWork::block_units];
  double others[SelectivityWork::block_units];
  int64_t winner[SelectivityWork::block_units];

  inline void start(const double* mean, int64_t label, int64_t width) {
    for (int64_t c = 0; c < width; c += float64_lanes) {
      store(maximum + c, load(mean + c));
      store(others + c, Float64{});
      store(winner + c, Int64{} + label);
    }
  }

  inline void add(const double* mean, int64_t label, int64_t width) {
    for (int64_t c = 0; c < width; c += float64_lanes) {
      const Float64 candidate = load(mean + c), largest = load(maximum + c);
      const Int64 is_larger = candidate > largest;
      store(maximum + c, is_larger ? candidate : largest);
      store(others + c, load(others + c) + (is_larger ? largest : candidate));
      store(winner + c, is_larger ? Int64{} + label : load(winner + c));
    }
  }
};

template <typename Out>
inline void store_index(const SelectivityWork& work, int64_t first, int64_t width,
                        const Extremes& extremes) {
  const SelectivityResults& results = work.results;
  const bool has_two_classes = work.order.present > 1;
  const double other_classes = has_two_classes ? double(work.order.present - 1) : 1.0;
  for (int64_t c = 0; c < width; ++c) {
    const int64_t unit = work.first_unit + first + c;
    const double maximum = extremes.maximum[c], rest = extremes.others[c] / other_classes;
    static_cast<Out*>(results.index)[unit] =
        selkern::selectivity_index(maximum, rest, has_two_classes, work.eps);
    static_cast<Out*>(results.maximum)[unit] = maximum;
    static_cast<Out*>(results.rest)[unit] = rest;
    results.winner[unit] = extremes.winner[c];
  }
}

template <typename T>
struct Selectivity {
  static void run(const SelectivityWork& work, int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item * SelectivityWork::block_units;
      const int64_t width = std::min(work.layer.units - first, SelectivityWork::block_units);
      const Extremes extremes = extremes_of_block(work, first, width);
      if (work.results.result_dtype == DType::float64) {
        store_index<double>(work, first, width, extremes);
      } else {
        store_index<float>(work, first, width, extremes);
      }
    }
  }

  static Extremes extremes_of_block(const SelectivityWork& work, int64_t first, int64_t width) {
    const SampleOrder& order = work.order;
    Extremes extremes = {};
    double mean[SelectivityWork::block_units];
    for (int64_t entry = 0; entry < order.present; ++entry) {
      const int64_t start = order.starts[entry];
      class_mean(static_cast<const T*>(work.layer.means) + first, work.layer.row_stride,
                 order.samples + start, order.starts[entry + 1] - start, width, mean);
      entry == 0 ? extremes.start(mean, order.classes[entry], width)
                 : extremes.add(mean, order.classes[entry], width);
    }
    return extremes;
  }
};

inline void selectivity(const SelectivityWork& work, int64_t begin, int64_t end) {
  run_for<Selectivity>(work.layer.dtype, work, begin, end);
}

template <typename T>
struct SelectivityBackward {
  static void run(const SelectivityBackwardWork& work, int64_t begin, int64_t end) {
    const SelectivityBackwardParams& params = work.params;
    for (int64_t n = begin; n < end; ++n) {
      T* grad = static_cast<T*>(params.grad_sums) + n * params.units;
      const int64_t label = work.classes[n];
      if (label < 0) {
        std::memset(grad, 0, params.units * sizeof(T));
        continue;
      }
      const double scale = 1.0 / params.counts[label];
      for (int64_t c = 0; c < params.units; c += float64_lanes) {
        const int64_t width = params.units - c;
        const Int64 is_winner = load_first(params.winner + c, width) == label;
        const Float64 gradient = is_winner ? load_first(work.grad_maximum + c, width)
                                           : load_first(work.grad_rest + c, width);
        store_first(grad + c, narrow<T>(gradient * scale), width);
      }
    }
  }
};

inline void selectivity_backward(const SelectivityBackwardWork& work, int64_t begin, int64_t end) {
  run_for<SelectivityBackward>(work.params.dtype, work, begin, end);
}

}  // namespace selkern::cpu::SELKERN_ISA
