// InlineVector: a vector of trivial values whose first N need no allocation. Most models have one or
// two inputs and outputs, and each allocation of a job costs 40 ns on the JS thread.
#pragma once

#include <cstddef>
#include <type_traits>
#include <vector>

namespace tercel {

template <typename T, size_t N>
class InlineVector {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  void push_back(T value) {
    if (size_ < N) {
      inline_[size_++] = value;
      return;
    }
    if (size_ == N) more_.assign(inline_, inline_ + N);
    more_.push_back(value);
    ++size_;
  }
  void clear() {
    size_ = 0;
    more_.clear();
  }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T* data() { return size_ <= N ? inline_ : more_.data(); }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  T& operator[](size_t i) { return data()[i]; }

 private:
  size_t size_ = 0;
  T inline_[N] = {};
  std::vector<T> more_;
};

}  // namespace tercel
