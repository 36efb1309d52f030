// Products with centred samples, which are packed into panels as they are centred. Included by
// kernel_table.h.
#pragma once

#include "cpu/aligned_buffer.h"
#include "cpu/panels.h"
#include "cpu/spectrum_kernels.h"

namespace selkern::cpu::SELKERN_ISA {

template <typename T>
struct CenteredPanels {
  using R = Result<T>;
  static constexpr int64_t width = panel_width<R>;

  const Samples& samples;
  Centering<T> centering{samples};

  void means_of(int64_t matrix, const Means<R>& means) const {
    for (int64_t first = 0; first < samples.units; first += block_columns) {
      centering.mean_of(matrix, first, std::min(samples.units - first, block_columns),
                        means + first);
    }
  }

  // Columns are units: row n of the panel is of sample n. means are those of the panel's units.
  void pack_units(int64_t matrix, int64_t panel, const Means<R>& means, R* packed) const {
    const int64_t first = panel * width, columns = std::min(samples.units - first, width);
    for (int64_t n = 0; n < samples.samples; ++n) {
      R* to = packed + n * width;
      centering.subtract(centering.row(matrix, n) + first, means, to, columns);
      std::fill(to + columns, to + width, R(0));
    }
  }

  // Columns are samples: row d of the panel is of unit d.
  void pack_samples(int64_t matrix, int64_t panel, const Means<R>& means, R* packed) const {
    constexpr int64_t segment = 32;
    const int64_t first = panel * width, columns = std::min(samples.samples - first, width);
    R rows[width][segment] = {};
    for (int64_t d = 0; d < samples.units; d += segment) {
      const int64_t count = std::min(samples.units - d, segment);
      for (int64_t c = 0; c < columns; ++c) {
        centering.subtract(centering.row(matrix, first + c) + d, means + d, rows[c], count);
      }
      for (int64_t k = 0; k < count; ++k) {
        R* to = packed + (d + k) * width;
        for (int64_t c = 0; c < width; ++c) to[c] = rows[c][k];
      }
    }
  }
};

template <typename T>
struct CenteredProduct {
  using R = Result<T>;
  static constexpr int64_t width = panel_width<R>;

  const CenteredProductParams& params;
  CenteredPanels<T> source{params};

  int64_t panels() const { return panels_of(params.size(), width); }
  int64_t panel_entries() const { return params.terms() * width; }
  int64_t columns_of(int64_t panel) const {
    return std::min(params.size() - panel * width, width);
  }

  void pack(int64_t matrix, int64_t panel, const Means<R>& means, R* packed) const {
    if (params.gram) return source.pack_samples(matrix, panel, means, packed);
    source.pack_units(matrix, panel, means + panel * width, packed);
  }

  // The product of panels i and j, and its mirror image.
  void multiply(int64_t matrix, int64_t i, int64_t j, const R* packed) const {
    const R* left = packed + i * panel_entries();
    const auto left_at = [=](int64_t r) {
      LeftRows<R, width> rows;
      for (int64_t t = 0; t < tile_rows; ++t) rows.rows[t] = left + r + t;
      return rows;
    };
    const int64_t rows = columns_of(i), columns = columns_of(j);
    alignas(64) R tile[width * width];
    multiply_panel(left_at, (rows + tile_rows - 1) / tile_rows * tile_rows,
                   packed + j * panel_entries(), columns, params.terms(), tile);
    const int64_t size = params.size();
    R* product = static_cast<R*>(params.product) + matrix * size * size;
    R* lower = product + i * width * size + j * width;
    R* upper = product + j * width * size + i * width;
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(tile + r * width, columns, lower + r * size);
    }
    if (i == j) return;
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = 0; r < rows; ++r) upper[c * size + r] = tile[r * width + c];
    }
  }

  static void run(const CenteredProductParams& params, int64_t begin, int64_t end) {
    const CenteredProduct product{params};
    std::vector<R> both(2 * params.units);
    const Means<R> means{both.data(), both.data() + params.units};
    AlignedBuffer panels;
    panels.grow(product.panels() * product.panel_entries() * sizeof(R));
    R* packed = panels.as<R>();
    for (int64_t matrix = begin; matrix < end; ++matrix) {
      product.source.means_of(matrix, means);
      for (int64_t i = 0; i < product.panels(); ++i) {
        product.pack(matrix, i, means, packed + i * product.panel_entries());
        for (int64_t j = 0; j <= i; ++j) product.multiply(matrix, i, j, packed);
      }
    }
  }
};

inline void centered_product(const CenteredProductParams& params, int64_t begin, int64_t end) {
  run_for<CenteredProduct>(params.dtype, params, begin, end);
}

template <typename R>
inline Means<R> means_of(const CenteredProductWork& work, int64_t matrix) {
  R* high = static_cast<R*>(work.means) + 2 * matrix * work.product.units;
  return {high, high + work.product.units};
}

template <typename T>
struct SampleMeans {
  static void run(const CenteredProductWork& work, int64_t begin, int64_t end) {
    const Samples& samples = work.product;
    const Centering<T> centering{samples};
    const int64_t blocks = column_blocks(samples.units);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t matrix = item / blocks, first = item % blocks * block_columns;
      centering.mean_of(matrix, first, std::min(samples.units - first, block_columns),
                        means_of<Result<T>>(work, matrix) + first);
    }
  }
};

template <typename T>
struct PackPanels {
  static void run(const CenteredProductWork& work, int64_t begin, int64_t end) {
    const CenteredProduct<T> product{work.product};
    for (int64_t item = begin; item < end; ++item) {
      const int64_t matrix = item / product.panels();
      product.pack(matrix, item % product.panels(), means_of<Result<T>>(work, matrix),
                   static_cast<Result<T>*>(work.panels) + item * product.panel_entries());
    }
  }
};

template <typename T>
struct MultiplyPanels {
  static void run(const CenteredProductWork& work, int64_t begin, int64_t end) {
    const CenteredProduct<T> product{work.product};
    const int64_t pairs = CenteredProductWork::pairs_of(product.panels());
    for (int64_t item = begin; item < end; ++item) {
      const int64_t matrix = item / pairs, pair = item % pairs;
      int64_t i = 0;
      while (CenteredProductWork::pairs_of(i + 1) <= pair) ++i;
      const auto* packed = static_cast<const Result<T>*>(work.panels) +
                           matrix * product.panels() * product.panel_entries();
      product.multiply(matrix, i, pair - CenteredProductWork::pairs_of(i), packed);
    }
  }
};

template <template <typename> class Kernel>
inline void run_product(const CenteredProductWork& work, int64_t begin, int64_t end) {
  run_for<Kernel>(work.product.dtype, work, begin, end);
}

template <typename T>
struct CenteredMatmul {
  using R = Result<T>;
  static constexpr int64_t width = panel_width<R>;

  const CenteredMatmulParams& params;
  CenteredPanels<T> source{params};
  AlignedBuffer panels{}, centred{};
  std::vector<R> both{};

  static void run(const CenteredMatmulWork& work, int64_t begin, int64_t end) {
    CenteredMatmul matmul{work.matmul};
    const int64_t blocks =
        work.matmul.gram ? panels_of(work.matmul.units, width) : work.row_blocks();
    for (int64_t item = begin; item < end; ++item) {
      const int64_t matrix = item / blocks, block = item % blocks;
      if (work.matmul.gram) {
        matmul.multiply_units(matrix, block);
      } else {
        const int64_t first = block * work.block_rows;
        matmul.multiply_samples(matrix, first,
                                std::min(work.matmul.samples, first + work.block_rows));
      }
    }
  }

  // weights X for one panel of units
  void multiply_units(int64_t matrix, int64_t panel) {
    const int64_t size = params.samples, first = panel * width;
    const int64_t columns = std::min(params.units - first, width);
    MeansOfBlock<R> means;
    source.centering.mean_of(matrix, first, columns, means);
    panels.grow(size * width * sizeof(R));
    source.pack_units(matrix, panel, means, panels.as<R>());
    const R* weights = weights_of(matrix);
    for (int64_t r = 0; r < size; r += width) {
      multiply(weights + r * size, size, std::min(size - r, width), panels.as<R>(), columns,
               result_at(matrix, r, first));
    }
  }

  // X weights for samples from first to last - 1
  void multiply_samples(int64_t matrix, int64_t first, int64_t last) {
    const int64_t size = params.units, count = panels_of(size, width);
    both.resize(2 * size);
    const Means<R> means{both.data(), both.data() + size};
    source.means_of(matrix, means);
    panels.grow(count * size * width * sizeof(R));
    pack_weights(matrix);
    centred.grow(width * size * sizeof(R));
    for (int64_t n = first; n < last; n += width) {
      const int64_t rows = std::min(last - n, width);
      for (int64_t r = 0; r < rows; ++r) {
        source.centering.subtract(source.centering.row(matrix, n + r), means,
                                  centred.as<R>() + r * size, size);
      }
      for (int64_t panel = 0; panel < count; ++panel) {
        multiply(centred.as<R>(), size, rows, panels.as<R>() + panel * size * width,
                 std::min(size - panel * width, width), result_at(matrix, n, panel * width));
      }
    }
  }

  void pack_weights(int64_t matrix) {
    const int64_t size = params.units;
    const R* weights = weights_of(matrix);
    R* to = panels.as<R>();
    for (int64_t first = 0; first < size; first += width) {
      const int64_t columns = std::min(size - first, width);
      for (int64_t k = 0; k < size; ++k, to += width) {
        std::copy_n(weights + k * size + first, columns, to);
        std::fill(to + columns, to + width, R(0));
      }
    }
  }

  // result [rows, columns] = left [rows, size] times a panel
  void multiply(const R* left, int64_t size, int64_t rows, const R* panel, int64_t columns,
                T* result) const {
    const auto left_at = [=](int64_t r) {
      LeftRows<R, 1> some;
      // A row that is not there is another once more.
      for (int64_t t = 0; t < tile_rows; ++t) {
        some.rows[t] = left + std::min(r + t, rows - 1) * size;
      }
      return some;
    };
    alignas(64) R tile[width * width];
    multiply_panel(left_at, (rows + tile_rows - 1) / tile_rows * tile_rows, panel, columns, size,
                   tile);
    for (int64_t r = 0; r < rows; ++r) {
      const R* from = tile + r * width;
      T* to = result + r * params.units;
      if constexpr (std::is_same_v<T, R>) {
        std::copy_n(from, columns, to);
      } else {
        for (int64_t c = 0; c < columns; c += lanes) {
          store_first(to + c, narrow<T>(widen<R>(load(from + c))), columns - c);
        }
      }
    }
  }

  const R* weights_of(int64_t matrix) const {
    return static_cast<const R*>(params.weights) + matrix * params.size() * params.size();
  }
  T* result_at(int64_t matrix, int64_t sample, int64_t unit) const {
    return static_cast<T*>(params.result) +
           (matrix * params.samples + sample) * params.units + unit;
  }
};

inline void centered_matmul(const CenteredMatmulWork& work, int64_t begin, int64_t end) {
  run_for<CenteredMatmul>(work.matmul.dtype, work, begin, end);
}

}  // namespace selkern::cpu::SELKERN_ISA
