// Sums over rows of adjacent units: the samples of a class, or the positions of a channels-last
// map.
#pragma once

#include "cpu/vectors.h"

namespace selkern::cpu::SELKERN_ISA {

// What is summed of each element.
struct Itself {
  static inline Float64 of(Float64 value) { return value; }
};
struct Square {
  static inline Float64 of(Float64 value) { return value * value; }
};

// Sum of `rows` rows (1, 2 or 4), pairwise, over the units from c on.
template <typename T, int rows, typename Term>
inline Float64 sum_of_units(const T* const* row, int64_t c, int64_t width) {
  if constexpr (rows == 1) {
    return Term::of(widen<T>(load_first(row[0] + c, width - c)));
  } else {
    return sum_of_units<T, rows / 2, Term>(row, c, width) +
           sum_of_units<T, rows / 2, Term>(row + rows / 2, c, width);
  }
}

// Adds `rows` rows of `width` units to sum, or puts them there if they are the first.
template <typename T, int rows, typename Term>
inline void add_rows(const T* const* row, int64_t width, bool is_first, double* sum) {
  if (is_first) {
    for (int64_t c = 0; c < width; c += float64_lanes)
      store(sum + c, sum_of_units<T, rows, Term>(row, c, width));
  } else {
    for (int64_t c = 0; c < width; c += float64_lanes) {
      store(sum + c, load(sum + c) + sum_of_units<T, rows, Term>(row, c, width));
    }
  }
}

// Sum of row_at(first) to row_at(last - 1).
template <typename T, typename Term, typename RowAt>
inline void sum_block_of_rows(const RowAt& row_at, int64_t first, int64_t last, int64_t width,
                              double* sum) {
  const T* row[4];
  int64_t i = first;
  for (; i + 4 <= last; i += 4) {
    for (int64_t j = 0; j < 4; ++j) row[j] = row_at(i + j);
    add_rows<T, 4, Term>(row, width, i == first, sum);
  }
  if ((last - i) & 2) {
    for (int64_t j = 0; j < 2; ++j) row[j] = row_at(i + j);
    add_rows<T, 2, Term>(row, width, i == first, sum);
    i += 2;
  }
  if (i < last) {
    row[0] = row_at(i);
    add_rows<T, 1, Term>(row, width, i == first, sum);
  }
  if (first == last) std::memset(sum, 0, divide_up(width, float64_lanes) * sizeof(Float64));
}

// Adds term to sum; lost carries what rounding took (Kahan), so that the error does not grow.
template <typename V>
inline void add_compensated(V term, V& sum, V& lost) {
  const V corrected = term - lost;
  const V total = sum + corrected;
  lost = (total - sum) - corrected;
  sum = total;
}

constexpr int64_t max_units = 1024;

// Sum of row_at(0) to row_at(count - 1), each asked for once and in turn. A unit's sum runs in an
// order that depends on count alone. At most max_units units; sum has room for whole vectors.
template <typename T, typename Term = Itself, typename RowAt>
inline void sum_rows(const RowAt& row_at, int64_t count, int64_t width, double* sum) {
  constexpr int64_t block = 1024;
  sum_block_of_rows<T, Term>(row_at, 0, std::min(count, block), width, sum);
  if (count <= block) return;
  double term[max_units], lost[max_units] = {};
  for (int64_t first = block; first < count; first += block) {
    sum_block_of_rows<T, Term>(row_at, first, std::min(count, first + block), width, term);
    for (int64_t c = 0; c < width; c += float64_lanes) {
      Float64 total = load(sum + c), rounding = load(lost + c);
      add_compensated(load(term + c), total, rounding);
      store(sum + c, total);
      store(lost + c, rounding);
    }
  }
}

}  // namespace selkern::cpu::SELKERN_ISA
