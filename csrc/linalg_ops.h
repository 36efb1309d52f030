// What the eigenvalue operators check and allocate alike on every device.
#pragma once

#include <tuple>

#include "common/linalg.h"
#include "tensors.h"

namespace selkern {

inline void check_matrices(const Tensor& a) {
  check(a.dim() == 3 && a.size(1) == a.size(2), "a must have shape [B, M, M], got ", ShapeOf{a});
  check(a.scalar_type() == ScalarType::Float || a.scalar_type() == ScalarType::Double,
        "a must be float32 or float64, got ", DtypeName{a.scalar_type()});
}

template <typename Device>
void solve(const Tensor& a, Tensor& eigenvalues, Tensor* eigenvectors) {
  if (a.numel() == 0) return;
  const Tensor matrices = torch::stable::contiguous(a);
  const EigensolverParams params{dtype_of(a, "a"),
                                 matrices.const_data_ptr(),
                                 a.size(0),
                                 a.size(1),
                                 eigenvalues.mutable_data_ptr(),
                                 eigenvectors ? eigenvectors->mutable_data_ptr() : nullptr};
  Device::solve(params, matrices);
}

template <typename Device>
Tensor eigvalsh(const Tensor& a) {
  check_matrices(a);
  Tensor eigenvalues = empty({a.size(0), a.size(1)}, a.scalar_type(), a);
  solve<Device>(a, eigenvalues, nullptr);
  return eigenvalues;
}

template <typename Device>
std::tuple<Tensor, Tensor> eigh(const Tensor& a) {
  check_matrices(a);
  Tensor eigenvalues = empty({a.size(0), a.size(1)}, a.scalar_type(), a);
  Tensor eigenvectors = empty(sizes_of(a), a.scalar_type(), a);
  solve<Device>(a, eigenvalues, &eigenvectors);
  return {eigenvalues, eigenvectors};
}

template <typename Device>
void register_linalg(torch::stable::detail::StableLibrary& m) {
  m.impl("eigvalsh", TORCH_BOX(&eigvalsh<Device>));
  m.impl("eigh", TORCH_BOX(&eigh<Device>));
}

}  // namespace selkern
