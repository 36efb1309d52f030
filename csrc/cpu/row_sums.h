// Sums over rows of adjacent units: the samples of a class, or the positions of a channels-last
// map.
#pragma once

#include "cpu/vectors.h"

namespace selkern::cpu::SELKERN_ISA {

// Sum of `rows` rows (1, 2 or 4), pairwise, over the units from c on.
template <typename T, int rows>
inline Float64 sum_of_units(const T* const* row, int64_t c, int64_t width) {
  if constexpr (rows == 1) {
    return widen<T>(load_first(row[0] + c, width - c));
  } else {
    return sum_of_units<T, rows / 2>(row, c, width) +
           sum_of_units<T, rows / 2>(row + rows / 2, c, width);
  }
}

// Adds `rows` rows of `width` units to sum, or puts them there if they are the first.
template <typename T, int rows>
inline void add_rows(const T* const* row, int64_t width, bool is_first, double* sum) {
  if (is_first) {
    for (int64_t c = 0; c < width; c += lanes) store(sum + c, sum_of_units<T, rows>(row, c, width));
  } else {
    for (int64_t c = 0; c < width; c += lanes) {
      store(sum + c, load(sum + c) + sum_of_units<T, rows>(row, c, width));
    }
  }
}

// Sum of row_at(0) to row_at(count - 1), each asked for once and in turn. A unit's sum runs in an
// order that depends on count alone. sum has room for a whole number of vectors.
template <typename T, typename RowAt>
inline void sum_rows(const RowAt& row_at, int64_t count, int64_t width, double* sum) {
  const T* row[4];
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    for (int64_t j = 0; j < 4; ++j) row[j] = row_at(i + j);
    add_rows<T, 4>(row, width, i == 0, sum);
  }
  if (count & 2) {
    for (int64_t j = 0; j < 2; ++j) row[j] = row_at(i + j);
    add_rows<T, 2>(row, width, i == 0, sum);
    i += 2;
  }
  if (count & 1) {
    row[0] = row_at(i);
    add_rows<T, 1>(row, width, i == 0, sum);
  }
  if (count == 0) std::memset(sum, 0, (width + lanes - 1) / lanes * sizeof(Float64));
}

}  // namespace selkern::cpu::SELKERN_ISA
