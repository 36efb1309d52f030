// The operators of the pooling family, for a Device that runs their kernels:
//   static void reduce_maps(const SpatialMeanParams&, const Tensor& x);  // with relu, or without
//   static void relu_with_mean_backward(const ReluWithMeanBackwardParams&, const Tensor& y);
// The first is not called without samples or units, the second not without elements.
#pragma once

#include <tuple>

#include "common/pooling.h"
#include "tensors.h"

namespace selkern {

inline SpatialMeanParams spatial_mean_params(const Maps& x, Tensor& mean) {
  SpatialMeanParams params{};
  params.dtype = dtype_of(x.tensor, "x");
  params.x = x.tensor.const_data_ptr();
  params.x_layout = params.y_layout = x.layout;
  params.mean = mean.mutable_data_ptr();
  return params;
}

inline Tensor empty_mean(const Tensor& x) {
  return empty({x.size(0), x.size(1)}, result_type(x.scalar_type()), x);
}

template <typename Device>
Tensor spatial_mean(const Tensor& x) {
  check_maps(x, "x");
  const Maps maps = readable_maps(x);
  Tensor mean = empty_mean(x);
  if (mean.numel() > 0) Device::reduce_maps(spatial_mean_params(maps, mean), maps.tensor);
  return mean;
}

template <typename Device>
Tensor relu_with_mean_into(const Maps& x, const Maps& y) {
  Tensor mean = empty_mean(x.tensor);
  SpatialMeanParams params = spatial_mean_params(x, mean);
  params.y = y.tensor.mutable_data_ptr();
  params.y_layout = y.layout;
  if (mean.numel() > 0) Device::reduce_maps(params, x.tensor);
  return mean;
}

template <typename Device>
std::tuple<Tensor, Tensor> relu_with_mean(const Tensor& x) {
  check_maps(x, "x");
  const Maps maps = readable_maps(x);
  const Maps y = empty_maps(maps);
  return {y.tensor, relu_with_mean_into<Device>(maps, y)};
}

template <typename Device>
Tensor relu_with_mean_in_place(const Tensor& x) {
  check_maps(x, "x");
  const auto layout = strided_layout(x);
  if (layout && is_dense(*layout)) return relu_with_mean_into<Device>({x, *layout}, {x, *layout});
  auto [y, mean] = relu_with_mean<Device>(x);
  Tensor target = x;
  torch::stable::copy_(target, y);
  return mean;
}

// grad_y as maps of y's kind, planar or channels-last.
inline Maps matching_maps(const Tensor& grad_y, const Maps& y) {
  if (const auto layout = strided_layout(grad_y)) {
    if (layout->channels_last == y.layout.channels_last) return {grad_y, *layout};
  }
  Maps copy = empty_maps(y);
  torch::stable::copy_(copy.tensor, grad_y);
  return copy;
}

template <typename Device>
Tensor relu_with_mean_backward(const std::optional<Tensor>& grad_y,
                               const std::optional<Tensor>& grad_mean, const Tensor& y) {
  check_maps(y, "y");
  check_same_device(grad_y, y, "grad_y");
  check_same_device(grad_mean, y, "grad_mean");
  const Maps maps = dense_maps(y);
  const Maps grad_x = empty_maps(maps);
  ReluWithMeanBackwardParams params{};
  params.dtype = dtype_of(y, "y");
  params.y = maps.tensor.const_data_ptr();
  params.grad_x = grad_x.tensor.mutable_data_ptr();
  params.layout = maps.layout;

  std::optional<Maps> incoming;
  if (grad_y) {
    check(sizes_of(*grad_y) == sizes_of(y) && grad_y->scalar_type() == y.scalar_type(),
          "grad_y must have the shape and dtype of y, got ", KindOf{*grad_y});
    incoming = matching_maps(*grad_y, maps);
    params.grad_y = incoming->tensor.const_data_ptr();
    params.grad_y_layout = incoming->layout;
  }
  std::optional<Tensor> rows;
  if (grad_mean) {
    check(grad_mean->dim() == 2 && grad_mean->size(0) == y.size(0) &&
              grad_mean->size(1) == y.size(1) &&
              grad_mean->scalar_type() == result_type(y.scalar_type()),
          "grad_mean must have shape [N, C] and the dtype of the mean, got ", KindOf{*grad_mean});
    rows = readable_rows(*grad_mean);
    params.grad_mean = rows->const_data_ptr();
    params.grad_mean_stride = rows->stride(0);
  }
  if (y.numel() > 0) Device::relu_with_mean_backward(params, maps.tensor);
  return grad_x.tensor;
}

template <typename Device>
void register_pooling(torch::stable::detail::StableLibrary& m) {
  m.impl("spatial_mean", TORCH_BOX(&spatial_mean<Device>));
  m.impl("relu_with_mean", TORCH_BOX(&relu_with_mean<Device>));
  m.impl("relu_with_mean_", TORCH_BOX(&relu_with_mean_in_place<Device>));
  m.impl("relu_with_mean_backward", TORCH_BOX(&relu_with_mean_backward<Device>));
}

}  // namespace selkern
