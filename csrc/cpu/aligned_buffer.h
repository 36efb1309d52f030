#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>

namespace selkern::cpu {

// Memory for vectors, which keeps what it holds when it grows.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() { release(data_); }

  void grow(int64_t bytes) {
    if (bytes <= bytes_) return;
    bytes = std::max(bytes, bytes_ + bytes_ / 2);
    void* larger = ::operator new(bytes, alignment);
    if (bytes_ > 0) std::memcpy(larger, data_, bytes_);
    release(data_);
    data_ = larger;
    bytes_ = bytes;
  }

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  static constexpr std::align_val_t alignment{64};
  static void release(void* data) { ::operator delete(data, alignment); }

  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace selkern::cpu
