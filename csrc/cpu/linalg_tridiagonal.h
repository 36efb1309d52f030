// Symmetric matrices, one a lane, to tridiagonal form by Householder's reflections.
#pragma once

#include "cpu/lanes.h"

namespace selkern::cpu::SELKERN_ISA {

// From the last row up. Reflection i, I - v v^T / h, makes row i zero left of its off-diagonal
// element; v takes that row's place, and has no entries from i on.
template <typename T>
class TridiagonalReduction {
 public:
  using V = Lanes<T>;

  // rows: the lower triangle, row after row; scratch: 5 * size.
  TridiagonalReduction(LaneArray<T> rows, int64_t size, LaneArray<T> scratch)
      : rows_(rows),
        size_(size),
        update_(scratch),
        previous_(scratch + size),
        product_(scratch + 2 * size),
        column_sums_(scratch + 3 * size),
        reflector_(scratch + 4 * size) {}

  // off_diagonal[i]: between rows i and i + 1; inverse[i]: 1 / h of reflection i.
  void run(LaneArray<T> diagonal, LaneArray<T> off_diagonal, LaneArray<T> inverse) {
    for (int64_t k = 0; k < size_; ++k) {
      update_.set(k, V{});
      previous_.set(k, V{});
    }
    for (int64_t i = size_ - 1; i > 0; --i) {
      update_row(i);
      diagonal.set(i, row(i)[i]);
      off_diagonal.set(i - 1, make_reflector(i, inverse));
      multiply(i);
      prepare_update(i, inverse[i]);
    }
    update_row(0);
    diagonal.set(0, row(0)[0]);
  }

 private:
  inline LaneArray<T> row(int64_t i) const { return rows_ + i * (i + 1) / 2; }

  // A - v w^T - w v^T of the reflection before, on row i.
  inline void update_row(int64_t i) const {
    const V v = -previous_[i], w = -update_[i];
    for (int64_t k = 0; k <= i; ++k) {
      row(i).set(k, updated(row(i)[k], v, w, previous_[k], update_[k]));
    }
  }

  static inline V updated(V entry, V v, V w, V v_k, V w_k) {
    return multiply_add<T>(v, w_k, multiply_add<T>(w, v_k, entry));
  }

  // v = x - beta e with beta = -sign(x_last) |x| of row i's part x left of the diagonal.
  inline V make_reflector(int64_t i, LaneArray<T> inverse) const {
    const LaneArray<T> x = row(i);
    const V squares = dot_product(x, x, i - 1);
    const V last = x[i - 1];
    const V norm = LaneMath<T>::square_root(multiply_add<T>(last, last, squares));
    const V beta = last > 0 ? -norm : norm;
    const V v_last = last - beta;
    const V h = -beta * v_last;
    // Nothing to make zero, or nothing that counts: entries are of the order of 1.
    const auto is_kept = (squares == 0) | (h < 64 * std::numeric_limits<T>::min());
    inverse.set(i, is_kept ? V{} : 1 / (is_kept ? V{} + 1 : h));
    for (int64_t k = 0; k < i - 1; ++k) reflector_.set(k, is_kept ? V{} : x[k]);
    reflector_.set(i - 1, is_kept ? V{} : v_last);
    for (int64_t k = 0; k < i; ++k) x.set(k, reflector_[k]);
    return is_kept ? last : beta;
  }

  // The leading i rows and columns: the update due, and the product with the new reflector.
  void multiply(int64_t i) const {
    for (int64_t k = 0; k < i; ++k) {
      product_.set(k, V{});
      column_sums_.set(k, V{});
    }
    sweep_corner(0, i % 4);
    for (int64_t r = i % 4; r < i; r += 4) {
      sweep_rows(r);
      sweep_corner(r, r + 4);
      const bool is_full = (r + 4) % run_terms < 4;
      for (int64_t k = 0; is_full && k < r; ++k) {
        product_.set(k, product_[k] + column_sums_[k]);
        column_sums_.set(k, V{});
      }
    }
    for (int64_t k = 0; k < i; ++k) product_.set(k, product_[k] + column_sums_[k]);
  }

  // Rows r to r + 4 left of column r.
  inline void sweep_rows(int64_t r) const {
    V v[4], w[4], reflector[4];
    LaneArray<T> rows[4];
    for (int64_t j = 0; j < 4; ++j) {
      v[j] = -previous_[r + j];
      w[j] = -update_[r + j];
      reflector[j] = reflector_[r + j];
      rows[j] = row(r + j);
    }
    for_runs(r, [&](int64_t begin, int64_t end) {
      V sum[4] = {};
      for (int64_t k = begin; k < end; ++k) {
        const V v_k = previous_[k], w_k = update_[k], reflector_k = reflector_[k];
        V of_column = column_sums_[k];
        for (int64_t j = 0; j < 4; ++j) {
          const V entry = updated(rows[j][k], v[j], w[j], v_k, w_k);
          rows[j].set(k, entry);
          sum[j] = multiply_add<T>(entry, reflector_k, sum[j]);
          of_column = multiply_add<T>(entry, reflector[j], of_column);
        }
        column_sums_.set(k, of_column);
      }
      for (int64_t j = 0; j < 4; ++j) product_.set(r + j, product_[r + j] + sum[j]);
    });
  }

  // The triangle of rows and columns from first to end.
  inline void sweep_corner(int64_t first, int64_t end) const {
    for (int64_t r = first; r < end; ++r) {
      const V v = -previous_[r], w = -update_[r], reflector = reflector_[r];
      V sum = product_[r];
      for (int64_t k = first; k <= r; ++k) {
        const V entry = updated(row(r)[k], v, w, previous_[k], update_[k]);
        row(r).set(k, entry);
        sum = multiply_add<T>(entry, reflector_[k], sum);
        if (k < r) product_.set(k, multiply_add<T>(entry, reflector, product_[k]));
      }
      product_.set(r, sum);
    }
  }

  // w = p - (p.v / 2h) v with p = A v / h.
  inline void prepare_update(int64_t i, V inverse) const {
    for (int64_t k = 0; k < i; ++k) product_.set(k, product_[k] * inverse);
    const V share = dot_product(product_, reflector_, i) * inverse * T(-0.5);
    for (int64_t k = 0; k < i; ++k) {
      const V v = reflector_[k];
      previous_.set(k, v);
      update_.set(k, multiply_add<T>(share, v, product_[k]));
    }
  }

  LaneArray<T> rows_;
  int64_t size_;
  LaneArray<T> update_, previous_;      // w and v of the reflection whose update is due
  LaneArray<T> product_, column_sums_;  // the sums of few rows, before they are added to product_
  LaneArray<T> reflector_;
};

}  // namespace selkern::cpu::SELKERN_ISA
