// Eigenvalues from eigenvectors. Included by kernel_table.h.
#pragma once

#include "cpu/aligned_buffer.h"
#include "cpu/panels.h"

namespace selkern::cpu::SELKERN_ISA {

template <typename R>
struct RayleighQuotients {
  static constexpr int64_t width = panel_width<R>;

  // Item: a panel of the vectors of one matrix.
  static void run(const RayleighQuotientParams& params, int64_t begin, int64_t end) {
    const int64_t size = params.size, panels = panels_of(size, width);
    AlignedBuffer buffer;
    buffer.grow(size * width * sizeof(R));
    R* panel = buffer.as<R>();
    for (int64_t item = begin; item < end; ++item) {
      const int64_t matrix = item / panels, first = item % panels * width;
      const int64_t columns = std::min(size - first, width);
      const R* vectors = static_cast<const R*>(params.vectors) + matrix * size * size + first;
      pack_panel(vectors, size, size, columns, panel);
      quotients_of(static_cast<const R*>(params.matrices) + matrix * size * size, size, panel,
                   columns, static_cast<R*>(params.quotients) + matrix * size + first);
    }
  }

  // v^T A v / v^T v for each v in the panel
  static void quotients_of(const R* matrix, int64_t size, const R* panel, int64_t columns,
                           R* quotients) {
    double products[width] = {}, squares[width] = {};
    alignas(64) R tile[width * width];
    for (int64_t r = 0; r < size; r += width) {
      const int64_t rows = std::min(size - r, width);
      multiply_rows(matrix + r * size, size, rows, panel, columns, tile);
      for (int64_t i = 0; i < rows; ++i) {
        const R *product = tile + i * width, *vector = panel + (r + i) * width;
        for (int64_t c = 0; c < columns; ++c) {
          products[c] += double(product[c]) * double(vector[c]);
          squares[c] += double(vector[c]) * double(vector[c]);
        }
      }
    }
    for (int64_t c = 0; c < columns; ++c) quotients[c] = R(products[c] / squares[c]);
  }
};

inline void rayleigh_quotients(const RayleighQuotientParams& params, int64_t begin, int64_t end) {
  if (params.dtype == DType::float64) return RayleighQuotients<double>::run(params, begin, end);
  RayleighQuotients<float>::run(params, begin, end);
}

}  // namespace selkern::cpu::SELKERN_ISA
