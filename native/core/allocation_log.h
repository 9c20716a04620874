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
  void Stop();
  // Events in the order of their places; those beyond the capacity are only counted.
  size_t size() const;
  uint64_t dropped() const;
  const AllocationEvent* events() const { return events_.get(); }

  static void Record(const void* address, size_t bytes) {
    if (AllocationLog* log = current_.load(std::memory_order_acquire)) log->Add(address, bytes);
  }

 private:
  void Add(const void* address, size_t bytes);

  const size_t capacity_;
  const std::unique_ptr<AllocationEvent[]> events_;
  std::atomic<uint64_t> next_{0};
  static std::atomic<AllocationLog*> current_;
};

}  // namespace tercel
