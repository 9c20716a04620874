// Runs by their rows, counted without a lock by any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "base/clock.h"

namespace tercel {

// Runs of one size.
struct BatchCount {
  uint32_t rows = 0;
  uint64_t runs = 0;
  int64_t run_ns = 0;
};

class RunCounts {
 public:
  // A run that went well. `ns`: how long it took; 0 where it was not timed.
  void Add(uint32_t rows, int64_t ns) {
    Size& size = SizeOf(std::max(1u, rows));
    size.runs.fetch_add(1, std::memory_order_relaxed);
    if (ns > 0) {
      size.timed.fetch_add(1, std::memory_order_relaxed);
      size.timed_ns.fetch_add(ns, std::memory_order_relaxed);
    }
    last_ns_.store(CoarseNowNs(), std::memory_order_relaxed);
  }
  // Runs that the graph ended with an error, and of them those whose inputs were to blame.
  void AddFailed(bool invalid) {
    (invalid ? invalid_ : failed_).fetch_add(1, std::memory_order_relaxed);
    last_ns_.store(CoarseNowNs(), std::memory_order_relaxed);
  }

  uint64_t failed() const { return failed_.load(std::memory_order_relaxed); }
  uint64_t invalid() const { return invalid_.load(std::memory_order_relaxed); }
  // When the last run ended; 0 before the first.
  int64_t last_ns() const { return last_ns_.load(std::memory_order_relaxed); }

  // One entry a size, smallest first. A run that was not timed counts as the mean of those of its size
  // that were, or as `typical_ns` where none was.
  std::vector<BatchCount> Read(int64_t typical_ns) const {
    std::vector<BatchCount> counts;
    for (const Size& size : sizes_) {
      const uint64_t runs = size.runs.load(std::memory_order_relaxed);
      if (runs == 0) continue;
      const auto timed = static_cast<int64_t>(size.timed.load(std::memory_order_relaxed));
      const int64_t mean = timed ? size.timed_ns.load(std::memory_order_relaxed) / timed : typical_ns;
      counts.push_back(
          {size.rows.load(std::memory_order_relaxed), runs, static_cast<int64_t>(runs) * mean});
    }
    std::sort(counts.begin(), counts.end(),
              [](const BatchCount& a, const BatchCount& b) { return a.rows < b.rows; });
    return counts;
  }

 private:
  struct Size {
    std::atomic<uint32_t> rows{0};  // 0: free
    std::atomic<uint64_t> runs{0};
    std::atomic<uint64_t> timed{0};
    std::atomic<int64_t> timed_ns{0};
  };
  // A program runs few sizes. Where it runs more, the rest are counted with the last that found room.
  static constexpr uint32_t kSizes = 128;

  Size& SizeOf(uint32_t rows) {
    for (uint32_t i = 0; i < kSizes; ++i) {
      Size& size = sizes_[(rows + i) % kSizes];
      uint32_t owner = size.rows.load(std::memory_order_relaxed);
      if (owner == 0 && size.rows.compare_exchange_strong(owner, rows, std::memory_order_relaxed)) {
        return size;
      }
      if (owner == rows) return size;
    }
    return sizes_[rows % kSizes];
  }

  Size sizes_[kSizes];
  std::atomic<uint64_t> failed_{0};
  std::atomic<uint64_t> invalid_{0};
  std::atomic<int64_t> last_ns_{0};
};

}  // namespace tercel
