#include <tuple>

#include "cpu/capability.h"
#include "cpu/parallel.h"
#include "tensors.h"

namespace selkern::cpu {
namespace {

void check_maps(const Tensor& x, const char* name) {
  check(x.dim() >= 2, name, " must have shape [N, C, ...], got ", x.dim(), " axes");
}

SpatialMeanParams spatial_mean_params(const Maps& x, Tensor& mean) {
  SpatialMeanParams params{};
  params.dtype = dtype_of(x.tensor, "x");
  params.x = x.tensor.const_data_ptr();
  params.x_layout = params.y_layout = x.layout;
  params.mean = mean.mutable_data_ptr();
  return params;
}

Tensor empty_mean(const Tensor& x) {
  return empty({x.size(0), x.size(1)}, result_type(x.scalar_type()), x);
}

void launch(const SpatialMeanParams& params) {
  if (params.x_layout.samples * params.x_layout.units == 0) return;
  parallel_items(kernels().spatial_mean, params, params.items(), params.item_cost());
}

Tensor spatial_mean(const Tensor& x) {
  check_maps(x, "x");
  dtype_of(x, "x");
  const Maps maps = readable_maps(x);
  Tensor mean = empty_mean(x);
  launch(spatial_mean_params(maps, mean));
  return mean;
}

Tensor relu_with_mean_into(const Maps& x, const Maps& y) {
  Tensor mean = empty_mean(x.tensor);
  SpatialMeanParams params = spatial_mean_params(x, mean);
  params.y = y.tensor.mutable_data_ptr();
  params.y_layout = y.layout;
  launch(params);
  return mean;
}

std::tuple<Tensor, Tensor> relu_with_mean(const Tensor& x) {
  check_maps(x, "x");
  dtype_of(x, "x");
  const Maps maps = readable_maps(x);
  const Maps y = empty_maps(maps);
  return {y.tensor, relu_with_mean_into(maps, y)};
}

Tensor relu_with_mean_in_place(const Tensor& x) {
  check_maps(x, "x");
  dtype_of(x, "x");
  const auto layout = strided_layout(x);
  if (layout && is_dense(*layout)) return relu_with_mean_into({x, *layout}, {x, *layout});
  auto [y, mean] = relu_with_mean(x);
  Tensor target = x;
  torch::stable::copy_(target, y);
  return mean;
}

Maps dense_maps(const Tensor& y) {
  Maps maps = readable_maps(y);
  if (is_dense(maps.layout)) return maps;
  Maps copy = empty_maps(maps);
  torch::stable::copy_(copy.tensor, maps.tensor);
  return copy;
}

// grad_y as maps of y's kind, planar or channels-last.
Maps matching_maps(const Tensor& grad_y, const Maps& y) {
  if (const auto layout = strided_layout(grad_y)) {
    if (layout->channels_last == y.layout.channels_last) return {grad_y, *layout};
  }
  Maps copy = empty_maps(y);
  torch::stable::copy_(copy.tensor, grad_y);
  return copy;
}

Tensor relu_with_mean_backward(const std::optional<Tensor>& grad_y,
                               const std::optional<Tensor>& grad_mean, const Tensor& y) {
  check_maps(y, "y");
  const DType dtype = dtype_of(y, "y");
  const Maps maps = dense_maps(y);
  const Maps grad_x = empty_maps(maps);
  ReluWithMeanBackwardParams params{};
  params.dtype = dtype;
  params.y = maps.tensor.const_data_ptr();
  params.grad_x = grad_x.tensor.mutable_data_ptr();
  params.layout = maps.layout;

  std::optional<Maps> incoming;
  if (grad_y) {
    check(sizes_of(*grad_y) == sizes_of(y) && grad_y->scalar_type() == y.scalar_type(),
          "grad_y must have the shape and dtype of y");
    incoming = matching_maps(*grad_y, maps);
    params.grad_y = incoming->tensor.const_data_ptr();
    params.grad_y_layout = incoming->layout;
  }
  std::optional<Tensor> rows;
  if (grad_mean) {
    check(grad_mean->dim() == 2 && grad_mean->size(0) == y.size(0) &&
              grad_mean->size(1) == y.size(1) &&
              grad_mean->scalar_type() == result_type(y.scalar_type()),
          "grad_mean must have shape [N, C] and the dtype of the mean");
    rows = readable_rows(*grad_mean);
    params.grad_mean = rows->const_data_ptr();
    params.grad_mean_stride = rows->stride(0);
  }
  if (y.numel() == 0) return grad_x.tensor;
  parallel_items(kernels().relu_with_mean_backward, params, params.items(), params.item_cost());
  return grad_x.tensor;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(selkern, CPU, m) {
  m.impl("spatial_mean", TORCH_BOX(&spatial_mean));
  m.impl("relu_with_mean", TORCH_BOX(&relu_with_mean));
  m.impl("relu_with_mean_", TORCH_BOX(&relu_with_mean_in_place));
  m.impl("relu_with_mean_backward", TORCH_BOX(&relu_with_mean_backward));
}

}  // namespace selkern::cpu
