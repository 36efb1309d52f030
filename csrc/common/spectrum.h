#pragma once

#include <cstdint>

#include "common/dtype.h"

// What the operators of this family ask of a device's kernels.
namespace selkern {

struct Samples {
  DType dtype;    // of x
  const void* x;  // [matrices, samples, units], units adjacent
  int64_t matrix_stride;
  int64_t sample_stride;
  int64_t matrices;
  int64_t samples;
  int64_t units;
  double scale;  // of the centered samples, a power of two
};

// centered = (x - mean over the samples) * scale
struct CenterParams : Samples {
  void* centered;  // [matrices, samples, units] contiguous, float64 for float64 x, else float32
};

// Of the centered samples X, the product X X^T (the Gram matrix) or X^T X.
struct CenteredProductParams : Samples {
  bool gram;
  void* product;  // [matrices, size, size] contiguous, float64 for float64 x, else float32

  int64_t size() const { return gram ? samples : units; }
  int64_t terms() const { return gram ? units : samples; }
};

// weights X, where they have the size of a Gram matrix, or X weights
struct CenteredMatmulParams : Samples {
  bool gram;
  const void* weights;  // [matrices, size, size] contiguous, float64 for float64 x, else float32
  void* result;         // [matrices, samples, units] contiguous, in the dtype of x

  int64_t size() const { return gram ? samples : units; }
};

// Spectra of covariances from eigenvalues of the products of their samples.
struct CovarianceSpectrumParams {
  DType dtype;              // of everything, float32 or float64
  const void* eigenvalues;  // [matrices, size] contiguous, ascending
  int64_t matrices;
  int64_t size;
  int64_t samples;  // N of each covariance
  double factor;    // from a product to a covariance
  void* spectrum;   // [matrices, size] contiguous, largest first
};

struct CovarianceSpectrumBackwardParams {
  DType dtype;           // of everything, float32 or float64
  const void* grad;      // [matrices, size] contiguous, of the spectrum
  const void* spectrum;  // [matrices, size] contiguous, largest first
  int64_t matrices;
  int64_t size;
  double factor;
  void* grad_eigenvalues;  // [matrices, size] contiguous, in ascending order
};

// Ranks beyond the anchor are compared with kappa / rank^exponent.
struct PowerLaw {
  const void*
      kappa;  // [spectra], in the dtype of the spectra, or null: from the anchor's eigenvalue
  double exponent;
  int64_t anchor;  // rank, counted from 1
  int64_t width;   // what the sum over ranks is divided by
};

struct PowerLawPenaltyParams {
  DType dtype;           // of everything, float32 or float64
  const void* spectrum;  // [spectra, ranks] contiguous, largest first
  int64_t spectra;
  int64_t ranks;
  PowerLaw law;
  void* penalty;     // [spectra]
  void* derivative;  // [spectra, ranks] contiguous
};

struct BasisSpectrumParams {
  DType dtype;            // of everything, float32 or float64
  const void* projected;  // [matrices, samples, columns] contiguous
  int64_t matrices;
  int64_t samples;
  int64_t columns;
  double scale;      // of the sums of squares
  void* spectrum;    // [matrices, columns] contiguous, largest first
  int64_t* order;    // [matrices, columns] contiguous, the column of each rank
  PowerLaw law;      // where a penalty is wanted
  void* penalty;     // [matrices]; null: not wanted
  void* derivative;  // [matrices, columns] contiguous, by column
};

}  // namespace selkern
