// Products of matrices whose columns are packed side by side into panels.
#pragma once

#include "cpu/lanes.h"
#include "cpu/spectrum_work.h"

namespace selkern::cpu::SELKERN_ISA {

// A panel holds this many columns of a matrix, row after row, with zeros where there are fewer.
template <typename R>
constexpr int64_t panel_width = panel_registers * full_lanes<R>;

// Of at most panel_width entries: too few for a call of memcpy.
template <typename R>
inline void copy_row(const R* from, R* to, int64_t columns) {
  for (int64_t c = 0; c < columns; c += full_lanes<R>) {
    store_first(to + c, load_first<R, Lanes<R>>(from + c, columns - c), columns - c);
  }
}

// Rows of a product that are summed together, as many as registers hold.
constexpr int64_t tile_rows = SELKERN_VECTOR_BYTES == 64 ? 4 : 2;

// The rows of the left operand: term k of row r is first_term[r][k * term_stride].
template <typename R, int64_t term_stride>
struct LeftRows {
  const R* first_term[tile_rows];

  inline R at(int64_t row, int64_t term) const { return first_term[row][term * term_stride]; }
  inline LeftRows from_term(int64_t term) const {
    LeftRows later = *this;
    for (const R*& row : later.first_term) row += term * term_stride;
    return later;
  }
};

// Calls each(i) for i from 0 to count - 1 as constants, so that what they index can be registers.
template <int64_t count, typename Each>
__attribute__((always_inline)) inline void unrolled(const Each& each) {
  if constexpr (count > 0) {
    unrolled<count - 1>(each);
    each(std::integral_constant<int64_t, count - 1>{});
  }
}

// Products with a panel, of which the first `vectors` vectors of columns are taken.
template <typename R, int vectors>
struct PanelTile {
  static constexpr int64_t width = panel_width<R>;
  static constexpr int64_t columns = vectors * full_lanes<R>;
  static constexpr int64_t run = 2 * run_terms;

  struct Sums {
    Lanes<R> entries[tile_rows * vectors];
  };

  // total [tile_rows, width] = or += left right; at most `run` terms, even and odd ones apart. Not
  // inlined, or the compiler keeps the sums in memory.
  template <typename Left>
  __attribute__((noinline)) static void add_run(const Left& left, const R* right, int64_t terms,
                                                bool is_first, R* total) {
    Sums even, odd;
    unrolled<tile_rows * vectors>([&](auto i) { even.entries[i] = odd.entries[i] = Lanes<R>{}; });
    int64_t k = terms % 2;
    if (k == 1) add_term(left, right, 0, odd);
    for (; k < terms; k += 2) {
      add_term(left, right, k, even);
      add_term(left, right, k + 1, odd);
    }
    unrolled<tile_rows * vectors>([&](auto i) {
      R* const to = total + i / vectors * width + i % vectors * full_lanes<R>;
      const Lanes<R> sum = even.entries[i] + odd.entries[i];
      store(to, is_first ? sum : load<R, Lanes<R>>(to) + sum);
    });
  }

  template <typename Left>
  __attribute__((always_inline)) static inline void add_term(const Left& left, const R* right,
                                                             int64_t k, Sums& sums) {
    unrolled<tile_rows>([&](auto r) {
      const Lanes<R> value = fill<R>(left.at(r, k));
      unrolled<vectors>([&](auto v) {
        const auto columns = load<R, Lanes<R>>(right + k * width + v * full_lanes<R>);
        sums.entries[r * vectors + v] =
            multiply_add<R>(value, columns, sums.entries[r * vectors + v]);
      });
    });
  }

  // total [rows, width] = the product; left_at(r) gives tile_rows rows from r on. Rows are a
  // multiple of that, and no more than width. Sums are of runs, up to 512 terms of runs in R, and
  // beyond in float64: many equal terms, which are all rounded the same way, lose no digits.
  template <typename LeftAt>
  static void multiply(const LeftAt& left_at, int64_t rows, const R* right, int64_t terms,
                       R* total) {
    constexpr int64_t block = 512;
    static_assert(block % run == 0, "a run must not go over the end of a block");
    add_block(left_at, rows, right, 0, std::min(terms, block), total);
    if (terms <= block) return;
    double sums[width][columns];
    R next[width * width];
    for_entries(rows, [&](int64_t r, int64_t c) { sums[r][c] = total[r * width + c]; });
    for (int64_t first = block; first < terms; first += block) {
      add_block(left_at, rows, right, first, std::min(terms, first + block), next);
      for_entries(rows, [&](int64_t r, int64_t c) { sums[r][c] += next[r * width + c]; });
    }
    for_entries(rows, [&](int64_t r, int64_t c) { total[r * width + c] = R(sums[r][c]); });
  }

  template <typename Entry>
  static inline void for_entries(int64_t rows, const Entry& entry) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) entry(r, c);
    }
  }

  template <typename LeftAt>
  static inline void add_block(const LeftAt& left_at, int64_t rows, const R* right, int64_t first,
                               int64_t last, R* total) {
    for (int64_t begin = first; begin < last; begin += run) {
      for (int64_t r = 0; r < rows; r += tile_rows) {
        add_run(left_at(r).from_term(begin), right + begin * width, std::min(last - begin, run),
                begin == first, total + r * width);
      }
    }
  }
};

// The product for a panel with `columns` columns in use, of which total holds whole vectors.
template <typename R, typename LeftAt>
inline void multiply_panel(const LeftAt& left_at, int64_t rows, const R* right, int64_t columns,
                           int64_t terms, R* total) {
  if (columns <= full_lanes<R>) {
    return PanelTile<R, 1>::multiply(left_at, rows, right, terms, total);
  }
  PanelTile<R, 2>::multiply(left_at, rows, right, terms, total);
}

// Packs the first columns of a matrix, whose rows lie `stride` apart, into one panel.
template <typename R>
inline void pack_panel(const R* matrix, int64_t stride, int64_t rows, int64_t columns, R* panel) {
  for (int64_t r = 0; r < rows; ++r, panel += panel_width<R>) {
    copy_row(matrix + r * stride, panel, columns);
    if (columns < panel_width<R>) std::fill(panel + columns, panel + panel_width<R>, R(0));
  }
}

// total = the product of `rows` rows, no more than panel_width, of `terms` adjacent entries each
// with a panel.
template <typename R>
inline void multiply_rows(const R* left, int64_t terms, int64_t rows, const R* panel,
                          int64_t columns, R* total) {
  const auto left_at = [=](int64_t r) {
    LeftRows<R, 1> left_rows;
    // A row that is not there is another once more.
    for (int64_t t = 0; t < tile_rows; ++t) {
      left_rows.first_term[t] = left + std::min(r + t, rows - 1) * terms;
    }
    return left_rows;
  };
  multiply_panel(left_at, divide_up(rows, tile_rows) * tile_rows, panel, columns, terms, total);
}

}  // namespace selkern::cpu::SELKERN_ISA
