// Implicit QL iteration on symmetric tridiagonal matrices, one a lane.
#pragma once

#include "common/linalg_tridiagonal.h"
#include "cpu/lanes.h"

namespace selkern::cpu::SELKERN_ISA {

// As many matrices as a register has lanes of T, computed in Compute, T or a wider type: several
// registers side by side. Every lane is at a block of its own; one that has nothing to do at a row
// turns by nothing.
template <typename T, typename Compute>
class QlIteration {
 public:
  static constexpr int lanes = full_lanes<T>;
  static constexpr int part_lanes = full_lanes<Compute>;
  static constexpr int parts = lanes / part_lanes;

  static int64_t workspace_bytes(int64_t size) { return 2 * size * lanes * sizeof(Compute); }

  QlIteration(Compute* workspace, int64_t size)
      : diagonal_{workspace}, off_diagonal_{workspace + size * lanes}, size_(int(size)) {}

  // Calls take(first, last) before each sweep, for the place to leave the cosine and the sine of
  // its rotations at, or null; they are of rows i and i + 1, for i from last - 1 down to first.
  // Afterwards diagonal holds the eigenvalues. True if all lanes converged.
  template <typename Take>
  bool run(LaneArray<T> diagonal, LaneArray<T> off_diagonal, const Take& take) {
    off_diagonal.set(size_ - 1, Lanes<T>{});
    std::copy_n(diagonal.data, size_ * lanes, diagonal_.data);
    std::copy_n(off_diagonal.data, size_ * lanes, off_diagonal_.data);
    bool is_done = find_blocks();
    for (int sweep = 0; !is_done && sweep < most_sweeps_per_row * size_; ++sweep) {
      chase(take(lowest_, highest_));
      is_done = find_blocks();
    }
    std::copy_n(diagonal_.data, size_ * lanes, diagonal.data);
    return is_done;
  }

 private:
  using V = Lanes<Compute>;
  using M = Mask<Compute>;
  using Math = LaneMath<Compute>;

  static inline int64_t at(int i, int part) { return i * parts + part; }

  // The first unreduced block of every lane, and the rows that all of them span. True if there is
  // none any more.
  bool find_blocks() {
    const int from = lowest_;
    lowest_ = size_ - 1;
    highest_ = 0;
    for (int part = 0; part < parts; ++part) {
      find_blocks(part, from);
      int first[part_lanes], last[part_lanes];
      for (int lane = 0; lane < part_lanes; ++lane) first[lane] = int(first_[part][lane]);
      for (int lane = 0; lane < part_lanes; ++lane) last[lane] = int(last_[part][lane]);
      for (int lane = 0; lane < part_lanes; ++lane) {
        if (first[lane] >= last[lane]) continue;
        lowest_ = std::min(lowest_, first[lane]);
        highest_ = std::max(highest_, last[lane]);
      }
    }
    return lowest_ >= highest_;
  }

  void find_blocks(int part, int from) {
    M first = M{} + from, last = M{} + (size_ - 1);
    M is_open = first == first;  // no end found yet
    for (int i = from; i < size_ - 1; ++i) {
      const M splits =
          is_open & is_negligible<T>(off_diagonal_[at(i, part)], diagonal_[at(i, part)],
                                     diagonal_[at(i + 1, part)]);
      const M at_first = splits & (first == i);
      const M ends = splits & ~at_first;
      first = at_first ? M{} + (i + 1) : first;
      last = ends ? M{} + i : last;
      is_open &= ~ends;
    }
    first_[part] = first;
    last_[part] = last;
  }

  void chase(T* rotations) {
    Bulge<Math, V> fresh[parts], bulges[parts];
    for (int part = 0; part < parts; ++part) fresh[part] = bulges[part] = start(part);
    for (int i = highest_ - 1; i >= lowest_; --i) {
      for (int part = 0; part < parts; ++part) {
        const M starts = last_[part] == i + 1;
        const M moves = (first_[part] <= i) & (last_[part] > i);
        const M ends = first_[part] == i;
        Bulge<Math, V>& bulge = bulges[part];
        bulge.cosine = starts ? fresh[part].cosine : bulge.cosine;
        bulge.sine = starts ? fresh[part].sine : bulge.sine;
        bulge.target = starts ? fresh[part].target : bulge.target;
        bulge.correction = starts ? fresh[part].correction : bulge.correction;
        advance(i, part, bulge, starts, moves, moves & ends);
        if (rotations == nullptr) continue;
        record(moves ? bulge.cosine : V{} + 1, rotations + part * part_lanes);
        record(moves ? bulge.sine : V{}, rotations + lanes + part * part_lanes);
      }
      if (rotations != nullptr) rotations += 2 * lanes;
    }
  }

  inline void advance(int i, int part, Bulge<Math, V>& bulge, M starts, M moves, M ends) const {
    const int64_t here = at(i, part), next = at(i + 1, part);
    V below = diagonal_[next];
    const V off_diagonal = bulge.advance(off_diagonal_[here], diagonal_[here], below);
    diagonal_.set(next, moves ? below : diagonal_[next]);
    off_diagonal_.set(next, moves ? (starts ? V{} : off_diagonal) : off_diagonal_[next]);
    diagonal_.set(here, ends ? diagonal_[here] - bulge.correction : diagonal_[here]);
    off_diagonal_.set(here, ends ? bulge.target : off_diagonal_[here]);
  }

  static inline void record(V values, T* to) {
    typedef T Narrow __attribute__((vector_size(part_lanes * sizeof(T))));
    store(to, __builtin_convertvector(values, Narrow));
  }

  Bulge<Math, V> start(int part) const {
    // Gathered in memory, because a register is slow to fill lane by lane.
    Compute first[part_lanes] = {}, second[part_lanes] = {}, last[part_lanes] = {};
    Compute off_diagonal[part_lanes];
    for (int lane = 0; lane < part_lanes; ++lane) {
      const int i = int(first_[part][lane]), end = int(last_[part][lane]);
      off_diagonal[lane] = 1;
      if (i >= end) continue;
      first[lane] = diagonal_.at(at(i, part), lane);
      second[lane] = diagonal_.at(at(i + 1, part), lane);
      off_diagonal[lane] = off_diagonal_.at(at(i, part), lane);
      last[lane] = diagonal_.at(at(end, part), lane);
    }
    return Bulge<Math, V>::start(load<Compute, V>(first), load<Compute, V>(second),
                                 load<Compute, V>(off_diagonal), load<Compute, V>(last));
  }

  LaneArray<Compute> diagonal_, off_diagonal_;
  int size_;
  M first_[parts] = {}, last_[parts] = {};  // of each lane's block
  int lowest_ = 0, highest_ = 0;
};

}  // namespace selkern::cpu::SELKERN_ISA
