// Products of matrices whose columns are packed side by side into panels.
#pragma once

#include "cpu/lanes.h"

namespace selkern::cpu::SELKERN_ISA {

// A panel holds this many columns of a matrix, row after row, with zeros where there are fewer.
template <typename R>
constexpr int64_t panel_width = 2 * full_lanes<R>;

inline int64_t panels_of(int64_t columns, int64_t width) { return (columns + width - 1) / width; }

// Rows of a product that are summed together, and how many sums each entry is taken in: as many as
// registers hold.
constexpr int64_t tile_rows = SELKERN_VECTOR_BYTES == 64 ? 4 : 2;
constexpr int64_t tile_sums = 2;  // of even and odd terms

// The rows of the left operand: term k of row r is rows[r][k * term_stride].
template <typename R, int64_t term_stride>
struct LeftRows {
  const R* rows[tile_rows];

  inline R at(int64_t row, int64_t term) const { return rows[row][term * term_stride]; }
  inline LeftRows from(int64_t term) const {
    LeftRows later = *this;
    for (const R*& row : later.rows) row += term * term_stride;
    return later;
  }
};

// Products with a panel, of which the first `vectors` vectors of columns are taken.
template <typename R, int vectors>
struct PanelTile {
  static constexpr int64_t width = panel_width<R>;
  static constexpr int64_t columns = vectors * full_lanes<R>;
  static constexpr int64_t run = tile_sums * run_terms;

  // total [tile_rows, width] = or += left right; at most `run` terms.
  template <typename Left>
  static inline void add_run(const Left& left, const R* right, int64_t terms, bool is_first,
                             R* total) {
    Lanes<R> sums[tile_sums][tile_rows][vectors] = {};
    int64_t k = 0;
    for (; k + 2 <= terms; k += 2) {
      add_term(left, right, k, sums[0]);
      add_term(left, right, k + 1, sums[1]);
    }
    if (k < terms) add_term(left, right, k, sums[0]);
    for (int64_t r = 0; r < tile_rows; ++r) {
      for (int v = 0; v < vectors; ++v) {
        R* const to = total + r * width + v * full_lanes<R>;
        const Lanes<R> sum = sums[0][r][v] + sums[1][r][v];
        store(to, is_first ? sum : load<R, Lanes<R>>(to) + sum);
      }
    }
  }

  template <typename Left>
  static inline void add_term(const Left& left, const R* right, int64_t k,
                              Lanes<R> (&sums)[tile_rows][vectors]) {
    Lanes<R> columns[vectors];
    for (int v = 0; v < vectors; ++v) {
      columns[v] = load<R, Lanes<R>>(right + k * width + v * full_lanes<R>);
    }
    for (int64_t r = 0; r < tile_rows; ++r) {
      const Lanes<R> value = fill<R>(left.at(r, k));
      for (int v = 0; v < vectors; ++v) {
        sums[r][v] = multiply_add<R>(value, columns[v], sums[r][v]);
      }
    }
  }

  // total [rows, width] = the product; left_at(r) gives the rows from r on. Rows are a multiple of
  // tile_rows. Sums are of runs, in blocks, and of more than one block in float64.
  template <typename LeftAt>
  static void multiply(const LeftAt& left_at, int64_t rows, const R* right, int64_t terms,
                       R* total) {
    constexpr int64_t block = 16 * run;
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
        add_run(left_at(r).from(begin), right + begin * width, std::min(last - begin, run),
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

}  // namespace selkern::cpu::SELKERN_ISA
