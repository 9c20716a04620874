// AllocationLog: every allocation that goes through Tercel's allocator while it is on, for the memory
// profile. Off, it costs a load and a branch an allocation.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace tercel {

struct AllocationEvent {
  int64_t ns = 0;  // monotonic clock
  uint64_t address = 0;
  int64_t bytes = 0;  // as asked for; 0 for a free
};

// Thread-safe; one of them is on at a time.
class AllocationLog {
 public:
  // Its memory is the system's own, not the arena's.
  explicit AllocationLog(size_t capacity);

  // Begins anew. REQUIRES: no other is on.
  void Start();
  // Nothing is written after it returns.
  void Stop();
  // Events in the order of their places; those beyond the capacity are only counted.
  size_t size() const;
  uint64_t dropped() const;
  const AllocationEvent* events() const { return events_.get(); }

  static void Record(const void* address, size_t bytes) {
    if (!current_.load(std::memory_order_relaxed)) return;
    // Stop() waits for who is here: the log may be gone after it.
    writers_.fetch_add(1);
    if (AllocationLog* log = current_.load()) log->Add(address, bytes);
    writers_.fetch_sub(1);
  }

 private:
  void Add(const void* address, size_t bytes);

  const size_t capacity_;
  const std::unique_ptr<AllocationEvent[]> events_;
  std::atomic<uint64_t> next_{0};
  static std::atomic<AllocationLog*> current_;
  static std::atomic<int64_t> writers_;
};

}  // namespace tercel
