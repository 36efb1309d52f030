// Eigenvalues and eigenvectors of small symmetric matrices. Included by kernel_table.h.
#pragma once

#include "cpu/linalg_ql.h"
#include "cpu/linalg_tridiagonal.h"

namespace selkern::cpu::SELKERN_ISA {

// The arrays of a group's workspace.
template <typename T>
struct GroupArrays {
  LaneArray<T> rows;  // lower triangle, row after row; then the reflectors
  LaneArray<T> diagonal, off_diagonal, inverse, order, scratch;

  static int64_t triangle(int64_t size) { return size * (size + 1) / 2; }

  static void allocate(EigensolverGroup& group, int64_t size) {
    group.arrays.grow((triangle(size) + 9 * size) * sizeof(Lanes<T>));
  }

  GroupArrays(const EigensolverGroup& group, int64_t size)
      : rows{group.arrays.as<T>()},
        diagonal(rows + triangle(size)),
        off_diagonal(diagonal + size),
        inverse(off_diagonal + size),
        order(inverse + size),
        scratch(order + size) {}
};

template <typename T>
class Eigenvalues {
 public:
  // Of group g, leaving the rest of its work in `group`.
  static void run(const EigensolverWork& work, int64_t g, EigensolverGroup& group) {
    group.clear();
    GroupArrays<T>::allocate(group, work.solver.size);
    Eigenvalues(work, g, group).solve();
  }

 private:
  using V = Lanes<T>;
  using M = Mask<T>;
  static constexpr int64_t lanes = full_lanes<T>;

  Eigenvalues(const EigensolverWork& work, int64_t g, EigensolverGroup& group)
      : solver_(work.solver),
        size_(work.solver.size),
        group_(group),
        arrays_(group_, size_),
        first_matrix_(g * lanes),
        matrices_(std::min(lanes, work.solver.batch - first_matrix_)) {}

  void solve() {
    load_triangles();
    scale();
    TridiagonalReduction<T>(arrays_.rows, size_, arrays_.scratch)
        .run(arrays_.diagonal, arrays_.off_diagonal, arrays_.inverse);
    // The rounding of many rotations would add up.
    const bool is_large = size_ > 64;
    if (!(is_large ? iterate<double>() : iterate<T>())) is_finite_ = M{};
    sort();
    store_values();
  }

  template <typename Compute>
  bool iterate() {
    AlignedBuffer workspace;
    workspace.grow(QlIteration<T, Compute>::workspace_bytes(size_));
    return QlIteration<T, Compute>(workspace.as<Compute>(), size_)
        .run(arrays_.diagonal, arrays_.off_diagonal, [this](int64_t first, int64_t last) {
          return solver_.eigenvectors == nullptr ? nullptr : record(first, last);
        });
  }

  void load_triangles() {
    const T* from = static_cast<const T*>(solver_.matrices) + first_matrix_ * size_ * size_;
    if (matrices_ < lanes) {
      std::memset(arrays_.rows.data, 0, GroupArrays<T>::triangle(size_) * sizeof(V));
    }
    for (int64_t lane = 0; lane < matrices_; ++lane) {
      T* to = arrays_.rows.data + lane;
      for (int64_t i = 0; i < size_; ++i) {
        const T* row = from + (lane * size_ + i) * size_;
        for (int64_t k = 0; k <= i; ++k, to += lanes) *to = row[k];
      }
    }
  }

  // To entries of the order of 1, by a power of two. A matrix that is not finite becomes zero.
  void scale() {
    const int64_t entries = GroupArrays<T>::triangle(size_);
    const V most = fill<T>(std::numeric_limits<T>::max());
    V largest{};
    is_finite_ = largest == 0;
    for (int64_t k = 0; k < entries; ++k) {
      const V magnitude = absolute(arrays_.rows[k]);
      is_finite_ &= magnitude <= most;
      largest = magnitude > largest ? magnitude : largest;
    }
    V factor;
    constexpr int most_exponent = std::numeric_limits<T>::max_exponent - 2;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      int exponent = 0;
      if (is_finite_[lane]) std::frexp(largest[lane], &exponent);
      exponent = std::clamp(exponent, -most_exponent, most_exponent);
      factor[lane] = std::ldexp(T(1), -exponent);
      unscale_[lane] = std::ldexp(T(1), exponent);
    }
    for (int64_t k = 0; k < entries; ++k) {
      arrays_.rows.set(k, is_finite_ ? arrays_.rows[k] * factor : V{});
    }
  }

  T* record(int64_t first, int64_t last) {
    auto& sweeps = group_.sweeps;
    const int64_t start = sweeps.empty() ? 0 : sweeps.back().end();
    sweeps.push_back({first, last, start});
    group_.rotations.grow(sweeps.back().end() * 2 * sizeof(V));
    return group_.rotations.as<T>() + 2 * start * lanes;
  }

  // Ascending, by exchanges of neighbours.
  void sort() {
    const auto values = arrays_.diagonal, order = arrays_.order;
    for (int64_t i = 0; i < size_; ++i) order.set(i, fill<T>(i));
    bool is_sorted = false;
    for (int64_t pass = 0; !is_sorted || pass % 2 == 1; ++pass) {
      if (pass % 2 == 0) is_sorted = true;
      M exchanged{};
      for (int64_t i = pass % 2; i + 1 < size_; i += 2) {
        const V a = values[i], b = values[i + 1], of_a = order[i], of_b = order[i + 1];
        const M exchange = b < a;
        exchanged |= exchange;
        values.set(i, exchange ? b : a);
        values.set(i + 1, exchange ? a : b);
        order.set(i, exchange ? of_b : of_a);
        order.set(i + 1, exchange ? of_a : of_b);
      }
      is_sorted = is_sorted && !any(exchanged);
    }
  }

  void store_values() const {
    T* to = static_cast<T*>(solver_.eigenvalues) + first_matrix_ * size_;
    for (int64_t lane = 0; lane < matrices_; ++lane) {
      group_.is_finite[lane] = is_finite_[lane] != 0;
      for (int64_t i = 0; i < size_; ++i) {
        *to++ = is_finite_[lane] ? arrays_.diagonal.at(i, lane) * unscale_[lane]
                                 : std::numeric_limits<T>::quiet_NaN();
      }
    }
  }

  const EigensolverParams& solver_;
  const int64_t size_;
  EigensolverGroup& group_;
  const GroupArrays<T> arrays_;
  const int64_t first_matrix_, matrices_;
  M is_finite_{};
  V unscale_{};
};

// Rows of the eigenvectors: those of the product of the reflections, and then the rotations.
template <typename T>
class Eigenvectors {
 public:
  // One block of the rows of group g.
  static void run(const EigensolverWork& work, int64_t g, int64_t block,
                  const EigensolverGroup& group, AlignedBuffer& buffer) {
    buffer.grow(EigensolverWork::block_rows * work.solver.size * sizeof(V));
    Eigenvectors(work, g, block, group, {buffer.as<T>()}).compute();
  }

 private:
  using V = Lanes<T>;
  static constexpr int64_t lanes = full_lanes<T>;
  static constexpr int64_t tile_rows = 4;  // whose entries of a column are in registers at once
  // As many as stay in the second-level cache while they pass over all tiles.
  static constexpr int64_t rotations_at_once = (int64_t(1) << 17) / (2 * sizeof(V));

  Eigenvectors(const EigensolverWork& work, int64_t g, int64_t block, const EigensolverGroup& group,
               LaneArray<T> rows)
      : solver_(work.solver),
        size_(work.solver.size),
        group_(group),
        arrays_(group_, size_),
        first_matrix_(g * lanes),
        matrices_(std::min(lanes, work.solver.batch - first_matrix_)),
        first_row_(block * EigensolverWork::block_rows),
        end_row_(std::min(first_row_ + EigensolverWork::block_rows, size_)),
        rows_(rows) {}

  // Rows first to first + tile_rows, with the entries of a column side by side.
  struct Tile {
    LaneArray<T> data;
    inline LaneArray<T> column(int64_t k) const { return data + k * tile_rows; }
  };

  inline Tile tile(int64_t first) const { return {rows_ + (first - first_row_) * size_}; }

  void compute() const {
    for (int64_t r = first_row_; r < end_row_; r += tile_rows) {
      set_unit_rows(tile(r), r);
      for (int64_t i = size_ - 1; i > 0; --i) reflect(tile(r), i);
    }
    const auto& sweeps = group_.sweeps;
    for (auto from = sweeps.begin(); from != sweeps.end();) {
      auto to = from + 1;
      while (to != sweeps.end() && to->end() - from->start <= rotations_at_once) ++to;
      for (int64_t r = first_row_; r < end_row_; r += tile_rows) {
        for (auto sweep = from; sweep != to; ++sweep) rotate(tile(r), *sweep);
      }
      from = to;
    }
    for (int64_t r = first_row_; r < end_row_; ++r) store_row(r);
  }

  void set_unit_rows(Tile tile, int64_t first) const {
    for (int64_t k = 0; k < size_; ++k) {
      for (int64_t j = 0; j < tile_rows; ++j) {
        tile.column(k).set(j, first + j == k ? V{} + 1 : V{});
      }
    }
  }

  void reflect(Tile tile, int64_t i) const {
    const LaneArray<T> v = arrays_.rows + GroupArrays<T>::triangle(i);
    V dot[tile_rows] = {};
    for_runs(i, [&](int64_t begin, int64_t end) {
      V sum[tile_rows] = {};
      for (int64_t k = begin; k < end; ++k) {
        const V v_k = v[k];
        for (int64_t j = 0; j < tile_rows; ++j) {
          sum[j] = multiply_add<T>(v_k, tile.column(k)[j], sum[j]);
        }
      }
      for (int64_t j = 0; j < tile_rows; ++j) dot[j] += sum[j];
    });
    const V inverse = arrays_.inverse[i];
    for (V& d : dot) d *= -inverse;
    for (int64_t k = 0; k < i; ++k) {
      const V v_k = v[k];
      for (int64_t j = 0; j < tile_rows; ++j) {
        tile.column(k).set(j, multiply_add<T>(dot[j], v_k, tile.column(k)[j]));
      }
    }
  }

  void rotate(Tile tile, const EigensolverGroup::Sweep& sweep) const {
    LaneArray<T> rotation = LaneArray<T>{group_.rotations.as<T>()} + 2 * sweep.start;
    V carried[tile_rows];
    for (int64_t j = 0; j < tile_rows; ++j) carried[j] = tile.column(sweep.last)[j];
    for (int64_t i = sweep.last - 1; i >= sweep.first; --i, rotation = rotation + 2) {
      const V cosine = rotation[0], sine = rotation[1];
      for (int64_t j = 0; j < tile_rows; ++j) {
        const V upper = tile.column(i)[j];
        tile.column(i + 1).set(j, multiply_add<T>(sine, upper, cosine * carried[j]));
        carried[j] = multiply_add<T>(cosine, upper, -(sine * carried[j]));
      }
    }
    for (int64_t j = 0; j < tile_rows; ++j) tile.column(sweep.first).set(j, carried[j]);
  }

  void store_row(int64_t r) const {
    const int64_t first = r - (r - first_row_) % tile_rows;
    for (int64_t lane = 0; lane < matrices_; ++lane) {
      T* to = static_cast<T*>(solver_.eigenvectors) + ((first_matrix_ + lane) * size_ + r) * size_;
      for (int64_t k = 0; k < size_; ++k) {
        const int64_t from = arrays_.order.at(k, lane);
        to[k] = group_.is_finite[lane] ? tile(first).column(from).at(r - first, lane)
                                       : std::numeric_limits<T>::quiet_NaN();
      }
    }
  }

  const EigensolverParams& solver_;
  const int64_t size_;
  const EigensolverGroup& group_;
  const GroupArrays<T> arrays_;
  const int64_t first_matrix_, matrices_;
  const int64_t first_row_, end_row_;
  const LaneArray<T> rows_;
};

// Rounding of the rotations makes columns longer or shorter, not less orthogonal.
template <typename T>
struct UnitColumns {
  static void run(const EigensolverWork& work, int64_t begin, int64_t end) {
    const int64_t size = work.solver.size;
    for (int64_t b = begin; b < end; ++b) {
      T* matrix = static_cast<T*>(work.solver.eigenvectors) + b * size * size;
      for (int64_t k = 0; k < size; k += float64_lanes) {
        scale_columns(matrix + k, size, std::min(float64_lanes, size - k));
      }
    }
  }

  static void scale_columns(T* columns, int64_t size, int64_t width) {
    Float64 squares{};
    for (int64_t i = 0; i < size; ++i) {
      const Float64 entries = widen<T>(load_first(columns + i * size, width));
      squares += entries * entries;
    }
    const Float64 factor = 1 / LaneMath<double>::square_root(squares);
    for (int64_t i = 0; i < size; ++i) {
      T* row = columns + i * size;
      store_first(row, narrow<T>(widen<T>(load_first(row, width)) * factor), width);
    }
  }
};

template <typename T>
struct Eigensystems {
  static void run(const EigensolverWork& work, int64_t begin, int64_t end) {
    EigensolverGroup group;
    AlignedBuffer buffer;
    for (int64_t g = begin; g < end; ++g) {
      Eigenvalues<T>::run(work, g, group);
      if (work.solver.eigenvectors == nullptr) continue;
      for (int64_t block = 0; block < work.row_blocks(); ++block) {
        Eigenvectors<T>::run(work, g, block, group, buffer);
      }
    }
  }
};

template <typename T>
struct EigenvaluesOfGroups {
  static void run(const EigensolverWork& work, int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) Eigenvalues<T>::run(work, g, work.groups[g]);
  }
};

template <typename T>
struct EigenvectorsOfBlocks {
  static void run(const EigensolverWork& work, int64_t begin, int64_t end) {
    AlignedBuffer buffer;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t g = item / work.row_blocks(), block = item % work.row_blocks();
      Eigenvectors<T>::run(work, g, block, work.groups[g], buffer);
    }
  }
};

template <template <typename> class Kernel>
inline void run_solver(const EigensolverWork& work, int64_t begin, int64_t end) {
  if (work.solver.dtype == DType::float64) return Kernel<double>::run(work, begin, end);
  Kernel<float>::run(work, begin, end);
}

inline void eigensystems(const EigensolverWork& work, int64_t begin, int64_t end) {
  run_solver<Eigensystems>(work, begin, end);
}

inline void eigenvalues(const EigensolverWork& work, int64_t begin, int64_t end) {
  run_solver<EigenvaluesOfGroups>(work, begin, end);
}

inline void eigenvectors(const EigensolverWork& work, int64_t begin, int64_t end) {
  run_solver<EigenvectorsOfBlocks>(work, begin, end);
}

inline void unit_columns(const EigensolverWork& work, int64_t begin, int64_t end) {
  run_solver<UnitColumns>(work, begin, end);
}

}  // namespace selkern::cpu::SELKERN_ISA
