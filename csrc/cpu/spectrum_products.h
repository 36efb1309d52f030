// Products with centered samples, which are packed into panels as they are centered. Included by
// kernel_table.h.
#pragma once

#include "cpu/aligned_buffer.h"
#include "cpu/panels.h"
#include "cpu/spectrum_center.h"

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

  // Panels of X: their columns are `count` units from `unit` on, with these means, and row n holds
  // sample n. Fills rows `first` to `last` - 1.
  void pack_units(int64_t matrix, int64_t unit, int64_t count, const Means<R>& means, int64_t first,
                  int64_t last, R* packed) const {
    const int64_t panel_entries = samples.samples * width;
    for (int64_t n = first; n < last; ++n) {
      const T* x = centering.row(matrix, n) + unit;
      R* to = packed + n * width;
      for (int64_t d = 0; d < count; d += width, to += panel_entries) {
        const int64_t columns = std::min(count - d, width);
        centering.subtract(x + d, means + d, to, columns);
        if (columns < width) std::fill(to + columns, to + width, R(0));
      }
    }
  }

  // A panel of X^T: its columns are samples, and row d holds unit d.
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
  int64_t columns_of(int64_t panel) const { return std::min(params.size() - panel * width, width); }

  // Items are those of CenteredProductWork::pack_items.
  void pack(int64_t matrix, int64_t item, const Means<R>& means, R* packed) const {
    if (params.gram)
      return source.pack_samples(matrix, item, means, packed + item * panel_entries());
    const int64_t first = item * CenteredProductWork::packed_samples;
    source.pack_units(matrix, 0, params.units, means, first,
                      std::min(params.samples, first + CenteredProductWork::packed_samples),
                      packed);
  }

  // The product of panels i and j, and its mirror image.
  void multiply(int64_t matrix, int64_t i, int64_t j, const R* packed) const {
    const R* left = packed + i * panel_entries();
    const auto left_at = [=](int64_t r) {
      LeftRows<R, width> left_rows;
      for (int64_t t = 0; t < tile_rows; ++t) left_rows.first_term[t] = left + r + t;
      return left_rows;
    };
    const int64_t rows = columns_of(i), columns = columns_of(j);
    alignas(64) R tile[width * width];
    multiply_panel(left_at, divide_up(rows, tile_rows) * tile_rows, packed + j * panel_entries(),
                   columns, params.terms(), tile);
    const int64_t size = params.size();
    R* product = static_cast<R*>(params.product) + matrix * size * size;
    R* lower = product + i * width * size + j * width;
    R* upper = product + j * width * size + i * width;
    for (int64_t r = 0; r < rows; ++r) {
      copy_row(tile + r * width, lower + r * size, columns);
    }
    if (i == j) return;
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = 0; r < rows; ++r) upper[c * size + r] = tile[r * width + c];
    }
  }

  static void run(const CenteredProductParams& params, int64_t begin, int64_t end) {
    const CenteredProduct product{params};
    std::vector<R> storage(2 * params.units);
    const Means<R> means = means_at<R>(storage.data(), params, 0);
    AlignedBuffer panels;
    panels.grow(product.panels() * product.panel_entries() * sizeof(R));
    R* packed = panels.as<R>();
    for (int64_t matrix = begin; matrix < end; ++matrix) {
      product.source.means_of(matrix, means);
      const int64_t items = CenteredProductWork::pack_items(params, product.panels());
      for (int64_t item = 0; item < items; ++item) product.pack(matrix, item, means, packed);
      for (int64_t i = 0; i < product.panels(); ++i) {
        for (int64_t j = 0; j <= i; ++j) product.multiply(matrix, i, j, packed);
      }
    }
  }
};

inline void centered_product(const CenteredProductParams& params, int64_t begin, int64_t end) {
  run_for<CenteredProduct>(params.dtype, params, begin, end);
}

template <typename R>
inline R* packed_of(const CenteredProductWork& work, int64_t matrix, int64_t panels) {
  return static_cast<R*>(work.panels) + matrix * panels * work.product.terms() * panel_width<R>;
}

template <typename T>
struct PackPanels {
  static void run(const CenteredProductWork& work, int64_t begin, int64_t end) {
    const CenteredProduct<T> product{work.product};
    const int64_t items = CenteredProductWork::pack_items(work.product, product.panels());
    for (int64_t item = begin; item < end; ++item) {
      const int64_t matrix = item / items;
      product.pack(matrix, item % items, means_at<Result<T>>(work.means, work.product, matrix),
                   packed_of<Result<T>>(work, matrix, product.panels()));
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
      product.multiply(matrix, i, pair - CenteredProductWork::pairs_of(i),
                       packed_of<Result<T>>(work, matrix, product.panels()));
    }
  }
};

inline void pack_panels(const CenteredProductWork& work, int64_t begin, int64_t end) {
  run_for<PackPanels>(work.product.dtype, work, begin, end);
}

inline void multiply_panels(const CenteredProductWork& work, int64_t begin, int64_t end) {
  run_for<MultiplyPanels>(work.product.dtype, work, begin, end);
}

template <typename T>
struct CenteredMatmul {
  using R = Result<T>;
  static constexpr int64_t width = panel_width<R>;

  const CenteredMatmulParams& params;
  CenteredPanels<T> source{params};
  AlignedBuffer panels{}, centered{};
  std::vector<R> mean_storage{};

  static void run(const CenteredMatmulWork& work, int64_t begin, int64_t end) {
    CenteredMatmul matmul{work.matmul};
    const int64_t blocks = work.matmul.gram ? column_blocks(work.matmul.units) : work.row_blocks();
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

  // weights X for one block of units
  void multiply_units(int64_t matrix, int64_t block) {
    const int64_t size = params.samples, first = block * block_columns;
    const int64_t units = std::min(params.units - first, block_columns);
    MeansOfBlock<R> means;
    source.centering.mean_of(matrix, first, units, means);
    panels.grow(panels_of(units, width) * size * width * sizeof(R));
    source.pack_units(matrix, first, units, means, 0, size, panels.as<R>());
    for (int64_t r = 0; r < size; r += width) {
      for (int64_t d = 0; d < units; d += width) {
        multiply(weights_of(matrix) + r * size, size, std::min(size - r, width),
                 panels.as<R>() + d * size, std::min(units - d, width),
                 result_at(matrix, r, first + d));
      }
    }
  }

  // X weights for samples from first to last - 1
  void multiply_samples(int64_t matrix, int64_t first, int64_t last) {
    const int64_t size = params.units, count = panels_of(size, width);
    mean_storage.resize(2 * size);
    const Means<R> means = means_at<R>(mean_storage.data(), params, 0);
    source.means_of(matrix, means);
    panels.grow(count * size * width * sizeof(R));
    pack_weights(matrix);
    centered.grow(width * size * sizeof(R));
    for (int64_t n = first; n < last; n += width) {
      const int64_t rows = std::min(last - n, width);
      for (int64_t r = 0; r < rows; ++r) {
        source.centering.subtract(source.centering.row(matrix, n + r), means,
                                  centered.as<R>() + r * size, size);
      }
      for (int64_t panel = 0; panel < count; ++panel) {
        multiply(centered.as<R>(), size, rows, panels.as<R>() + panel * size * width,
                 std::min(size - panel * width, width), result_at(matrix, n, panel * width));
      }
    }
  }

  void pack_weights(int64_t matrix) {
    const int64_t size = params.units;
    const R* weights = weights_of(matrix);
    for (int64_t first = 0; first < size; first += width) {
      pack_panel(weights + first, size, size, std::min(size - first, width),
                 panels.as<R>() + first * size);
    }
  }

  // result [rows, columns] = left [rows, size] times a panel
  void multiply(const R* left, int64_t size, int64_t rows, const R* panel, int64_t columns,
                T* result) const {
    alignas(64) R tile[width * width];
    multiply_rows(left, size, rows, panel, columns, tile);
    for (int64_t r = 0; r < rows; ++r) {
      const R* from = tile + r * width;
      T* to = result + r * params.units;
      if constexpr (std::is_same_v<T, R>) {
        copy_row(from, to, columns);
      } else {
        for (int64_t c = 0; c < columns; c += float64_lanes) {
          store_first(to + c, narrow<T>(widen<R>(load(from + c))), columns - c);
        }
      }
    }
  }

  const R* weights_of(int64_t matrix) const {
    return static_cast<const R*>(params.weights) + matrix * params.size() * params.size();
  }
  T* result_at(int64_t matrix, int64_t sample, int64_t unit) const {
    return static_cast<T*>(params.result) + (matrix * params.samples + sample) * params.units +
           unit;
  }
};

inline void centered_matmul(const CenteredMatmulWork& work, int64_t begin, int64_t end) {
  run_for<CenteredMatmul>(work.matmul.dtype, work, begin, end);
}

}  // namespace selkern::cpu::SELKERN_ISA
