// RunningMedian: the median of a stream of durations, kept in two words.
#pragma once

#include <atomic>
#include <cstdint>

namespace tercel {

// The median of a stream, approximately: each sample moves it by 1/16 towards itself, so that a page
// fault or a preempted run counts once, whatever its size. Readers may be on any thread.
class RunningMedian {
 public:
  void Add(int64_t sample) {
    const int64_t value = value_.load(std::memory_order_relaxed);
    const uint32_t count = count_.load(std::memory_order_relaxed);
    int64_t next;
    if (count < 4) {
      next = count == 0 || sample < value ? sample : value;
      count_.store(count + 1, std::memory_order_relaxed);
    } else {
      next = value + (sample > value ? value / 16 + 1 : -(value / 16 + 1));
    }
    value_.store(next > 1 ? next : 1, std::memory_order_relaxed);
  }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }
  bool known() const { return count_.load(std::memory_order_relaxed) >= 4; }

 private:
  std::atomic<int64_t> value_{0};
  std::atomic<uint32_t> count_{0};
};

}  // namespace tercel
