#include "memory/allocation_log.h"

#include <algorithm>
#include <thread>

#include "base/clock.h"

namespace tercel {

std::atomic<AllocationLog*> AllocationLog::current_{nullptr};
std::atomic<int64_t> AllocationLog::writers_{0};

AllocationLog::AllocationLog(size_t capacity)
    : capacity_(capacity), events_(new AllocationEvent[capacity]) {}

void AllocationLog::Start() {
  next_.store(0);
  current_.store(this);
}

void AllocationLog::Stop() {
  current_.store(nullptr);
  while (writers_.load() != 0) std::this_thread::yield();
}

size_t AllocationLog::size() const {
  return static_cast<size_t>(std::min<uint64_t>(next_.load(), capacity_));
}

uint64_t AllocationLog::dropped() const {
  const uint64_t count = next_.load();
  return count > capacity_ ? count - capacity_ : 0;
}

void AllocationLog::Add(const void* address, size_t bytes) {
  const uint64_t place = next_.fetch_add(1, std::memory_order_relaxed);
  if (place >= capacity_) return;
  AllocationEvent& event = events_[place];
  event.ns = NowNs();
  event.address = reinterpret_cast<uintptr_t>(address);
  event.bytes = static_cast<int64_t>(bytes);
}

}  // namespace tercel
