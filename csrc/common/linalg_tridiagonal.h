#pragma once

#include "common/host_device.h"

// Formulas of the implicit QL iteration on symmetric tridiagonal matrices, for a scalar or for a
// vector of them. Matrices are scaled so that their entries are of the order of 1.
namespace selkern {

// Static, because files compiled for different instruction sets must not share a copy.

// Half the distance from 1 to the next number.
template <typename scalar_t>
SELKERN_HOST_DEVICE constexpr scalar_t unit_roundoff() {
  return sizeof(scalar_t) == sizeof(double) ? scalar_t(1.1102230246251565e-16)
                                            : scalar_t(5.9604644775390625e-08);
}

// Sweeps after which a matrix that has not converged is given up; few take more than 2 a row.
constexpr int most_sweeps_per_row = 30;

// Of no weight beside entries of the order of 1, and where float32 begins to lose digits.
constexpr float vanishing_square = 1e-36f;

// Whether the off-diagonal element between two diagonal ones is as good as zero.
template <typename scalar_t, typename Value>
SELKERN_HOST_DEVICE static inline auto is_negligible(Value off_diagonal, Value above, Value below) {
  const Value magnitude = off_diagonal < 0 ? -off_diagonal : off_diagonal;
  const Value neighbours = (above < 0 ? -above : above) + (below < 0 ? -below : below);
  return magnitude <= unit_roundoff<scalar_t>() * (neighbours + scalar_t(0.125));
}

// A bulge that is chased from row `last` up to row `first` of an unreduced block, by rotations of
// neighbouring rows and columns. Math::square_root and Math::inverse_square_root take a Value.
template <typename Math, typename Value>
struct Bulge {
  Value cosine;  // of the rotation made last
  Value sine;
  Value target;      // what the next rotation turns onto the off-diagonal
  Value correction;  // to the diagonal

  // With Wilkinson's shift. first, second: the block's first two diagonal elements; off_diagonal:
  // between them; last: its last diagonal element.
  SELKERN_HOST_DEVICE static inline Bulge start(Value first, Value second, Value off_diagonal,
                                                Value last) {
    const Value half = (second - first) / (off_diagonal + off_diagonal);
    const Value root = Math::square_root(half * half + 1);
    const Value shift = off_diagonal / (half + (half < 0 ? -root : root));
    return {Value{} + 1, Value{} + 1, last - first + shift, Value{}};
  }

  // Rotates rows i and i + 1: off_diagonal is between them, diagonal is row i's, below row i + 1's,
  // which is final then. Returns the off-diagonal element below row i + 1.
  SELKERN_HOST_DEVICE inline Value advance(Value off_diagonal, Value diagonal, Value& below) {
    const Value bulge = sine * off_diagonal;
    const Value rest = cosine * off_diagonal;
    const Value squares = bulge * bulge + target * target;
    const auto vanishes = squares < vanishing_square;
    const Value one = Value{} + 1, zero = Value{};
    const Value inverse = Math::inverse_square_root(squares);
    sine = vanishes ? zero : bulge * inverse;
    cosine = vanishes ? one : target * inverse;
    const Value corrected = below - correction;
    const Value turned = (diagonal - corrected) * sine + cosine * (rest + rest);
    correction = sine * turned;
    below = corrected + correction;
    target = cosine * turned - rest;
    return vanishes ? zero : squares * inverse;
  }
};

}  // namespace selkern
