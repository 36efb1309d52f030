// Between torch's tensors and the kernels' plain parameters, for both devices.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/allocate.h"
#include "common/dtype.h"
#include "common/map_layout.h"
#include "common/value_error.h"

namespace selkern {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Arrives in Python as a ValueError with this text.
template <typename... Parts>
inline void check(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  (message << ... << parts);
  raise_value_error(message.str());
}

// What a message says came, as Python writes it: [2, 3], float32, [2, 3] of float32.
struct ShapeOf {
  const Tensor& tensor;
};

struct DtypeName {
  ScalarType type;
};

struct KindOf {
  const Tensor& tensor;
};

inline std::ostream& operator<<(std::ostream& stream, const ShapeOf& shape) {
  const char* separator = "[";
  for (const int64_t size : shape.tensor.sizes()) {
    stream << std::exchange(separator, ", ") << size;
  }
  return stream << (shape.tensor.dim() == 0 ? "[]" : "]");
}

inline std::ostream& operator<<(std::ostream& stream, const DtypeName& name) {
  switch (name.type) {
    case ScalarType::Half:
      return stream << "float16";
    case ScalarType::BFloat16:
      return stream << "bfloat16";
    case ScalarType::Float:
      return stream << "float32";
    case ScalarType::Double:
      return stream << "float64";
    case ScalarType::Byte:
      return stream << "uint8";
    case ScalarType::Char:
      return stream << "int8";
    case ScalarType::Short:
      return stream << "int16";
    case ScalarType::Int:
      return stream << "int32";
    case ScalarType::Long:
      return stream << "int64";
    case ScalarType::Bool:
      return stream << "bool";
    case ScalarType::ComplexFloat:
      return stream << "complex64";
    case ScalarType::ComplexDouble:
      return stream << "complex128";
    default:
      return stream << torch::headeronly::toString(name.type);
  }
}

inline std::ostream& operator<<(std::ostream& stream, const KindOf& kind) {
  return stream << ShapeOf{kind.tensor} << " of " << DtypeName{kind.tensor.scalar_type()};
}

// The dispatcher looks at all tensors and chooses one device; a kernel must not meet another.
inline void check_same_device(const Tensor& tensor, const Tensor& like, const char* name) {
  check(tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(),
        name, " must be on the same device as the other tensors");
}

inline void check_same_device(const std::optional<Tensor>& tensor, const Tensor& like,
                              const char* name) {
  if (tensor) check_same_device(*tensor, like, name);
}

inline DType dtype_of(ScalarType type, const char* name) {
  switch (type) {
    case ScalarType::Half:
      return DType::float16;
    case ScalarType::BFloat16:
      return DType::bfloat16;
    case ScalarType::Float:
      return DType::float32;
    case ScalarType::Double:
      return DType::float64;
    default:
      check(false, name, " must be float16, bfloat16, float32 or float64, got ", DtypeName{type});
      return {};
  }
}

inline DType dtype_of(const Tensor& tensor, const char* name) {
  return dtype_of(tensor.scalar_type(), name);
}

inline void check_maps(const Tensor& x, const char* name) {
  check(x.dim() >= 2, name, " must have shape [N, C, ...], got ", x.dim(), " axes");
  dtype_of(x, name);
}

inline ScalarType result_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline std::vector<int64_t> sizes_of(const Tensor& x) {
  return std::vector<int64_t>(x.sizes().begin(), x.sizes().end());
}

// x [N, C, ...] as feature maps, or nothing where its strides are neither planar nor channels-last.
// Axes of one element have no stride to speak of.
inline std::optional<MapLayout> strided_layout(const Tensor& x) {
  MapLayout layout{x.size(0), x.size(1), 1, x.stride(0), x.stride(1), 1, false};
  if (x.numel() == 0) {
    for (int64_t axis = 2; axis < x.dim(); ++axis) layout.positions *= x.size(axis);
    layout.sample_stride = layout.unit_stride = layout.position_stride = 0;
    return layout;
  }
  bool found = false;
  for (int64_t axis = x.dim() - 1; axis >= 2; --axis) {
    const int64_t size = x.size(axis), stride = x.stride(axis);
    if (size != 1 && !found) {
      layout.position_stride = stride;
      found = true;
    } else if (size != 1 && stride != layout.positions * layout.position_stride) {
      return std::nullopt;
    }
    layout.positions *= size;
  }
  const bool adjacent_units = layout.unit_stride == 1 || layout.units == 1;
  if (layout.positions == 1) {
    layout.channels_last = true;
    layout.position_stride = layout.units;
    return adjacent_units ? std::optional(layout) : std::nullopt;
  }
  if (layout.position_stride == 1) return layout;
  layout.channels_last = true;
  return adjacent_units ? std::optional(layout) : std::nullopt;
}

// Maps that a kernel can read: x itself where its strides allow, otherwise one contiguous copy.
struct Maps {
  Tensor tensor;
  MapLayout layout;
};

inline Maps readable_maps(const Tensor& x) {
  if (auto layout = strided_layout(x)) return {x, *layout};
  Tensor copy = torch::stable::contiguous(x);
  return {copy, strided_layout(copy).value()};
}

inline bool is_dense(const MapLayout& layout) {
  if (layout.numel() == 0) return true;
  const int64_t unit_stride = layout.channels_last ? 1 : layout.positions;
  const int64_t position_stride = layout.channels_last ? layout.units : 1;
  return (layout.units == 1 || layout.unit_stride == unit_stride) &&
         (layout.positions == 1 || layout.position_stride == position_stride) &&
         (layout.samples == 1 || layout.sample_stride == layout.units * layout.positions);
}

// The strides of an output shaped like maps: theirs where they are dense, otherwise dense ones of
// the same kind. The fake kernels follow the same rule.
inline std::vector<int64_t> output_strides(const Maps& maps) {
  const auto sizes = maps.tensor.sizes();
  const auto strides = maps.tensor.strides();
  if (is_dense(maps.layout)) return std::vector<int64_t>(strides.begin(), strides.end());
  std::vector<int64_t> dense(sizes.size());
  int64_t stride = maps.layout.channels_last ? sizes[1] : 1;
  for (size_t axis = sizes.size() - 1; axis >= 2; --axis) {
    dense[axis] = stride;
    stride *= std::max<int64_t>(1, sizes[axis]);
  }
  dense[1] = maps.layout.channels_last ? 1 : stride;
  dense[0] = std::max<int64_t>(1, maps.layout.units * maps.layout.positions);
  return dense;
}

inline Maps empty_maps(const Maps& like) {
  Tensor tensor = empty_strided(sizes_of(like.tensor), output_strides(like), like.tensor);
  return {tensor, strided_layout(tensor).value()};
}

inline Maps dense_maps(const Tensor& x) {
  Maps maps = readable_maps(x);
  if (is_dense(maps.layout)) return maps;
  Maps copy = empty_maps(maps);
  torch::stable::copy_(copy.tensor, maps.tensor);
  return copy;
}

// tensor [N, C] with adjacent units: itself, or one contiguous copy.
inline Tensor readable_rows(const Tensor& tensor) {
  return tensor.size(1) == 1 || tensor.stride(1) == 1 ? tensor : torch::stable::contiguous(tensor);
}

}  // namespace selkern
