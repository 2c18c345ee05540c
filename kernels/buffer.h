// Owned memory of one backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace augur {

/// Move-only owner of a block of memory and the function that frees it.
class Buffer {
 public:
  using Free = void (*)(void* data, int64_t num_bytes) noexcept;

  Buffer() = default;
  Buffer(void* data, int64_t num_bytes, Free free) noexcept
      : data_(data), num_bytes_(num_bytes), free_(free) {}
  ~Buffer() {
    if (data_ != nullptr) free_(data_, num_bytes_);
  }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        num_bytes_(std::exchange(other.num_bytes_, 0)),
        free_(other.free_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(num_bytes_, other.num_bytes_);
    std::swap(free_, other.free_);
    return *this;
  }

  std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }
  template <typename T>
  T* as() const noexcept {
    return static_cast<T*>(data_);
  }
  int64_t num_bytes() const noexcept { return num_bytes_; }

 private:
  void* data_ = nullptr;
  int64_t num_bytes_ = 0;
  Free free_ = nullptr;
};

}  // namespace augur
