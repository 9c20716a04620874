// Arena: the allocator over slabs, and Lease: a counted span of it that somebody holds.
//
//   slab (16 MiB, aligned to its size)
//   +--------+------------------+--------------------------+---------+
//   | header | span: 64 KiB of  | span: one large          | free    |
//   |        | 192-byte objects | allocation (4 KiB pages) | span    |
//   +--------+------------------+--------------------------+---------+
//
// Small sizes (up to 16 KiB) come from size classes, four to a doubling; larger ones are whole pages,
// best fit, coalesced when freed. What does not fit a slab gets a slab of its own. Every address is
// aligned to 64 bytes. ONNX Runtime's CPU allocations go through the same arena, so they are counted.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "base/ref.h"
#include "memory/pages.h"

namespace tercel {

struct ArenaOptions {
  PageOptions pages;
  size_t max_bytes = 0;  // limit on reserved bytes; 0 is none
  // Where slabs come from; called without a lock.
  void* (*map)(size_t bytes, size_t alignment, const PageOptions& options) = &MapPages;
  void (*unmap)(void* data, size_t bytes, const PageOptions& options) = &UnmapPages;
};

struct ArenaStats {
  uint64_t reserved_bytes = 0;     // mapped from the system
  uint64_t leased_bytes = 0;       // handed out now, after rounding to size classes
  uint64_t peak_leased_bytes = 0;  // the most ever handed out
  uint64_t allocations = 0;        // since the start
  uint64_t frees = 0;
  uint64_t slabs = 0;
  bool huge_pages = false;  // asked for, and the system has them
  bool locked = false;
  bool pinned = false;
};

// Thread-safe. Never destroyed while memory is out (the Runtime's arena lives as long as the process).
class Arena {
 public:
  // What one size class has: small spans of it are 64 KiB each.
  struct ClassUse {
    size_t object_bytes = 0;
    uint64_t spans = 0;         // with at least one free object
    uint64_t free_objects = 0;  // in them
  };
  struct Usage {
    std::vector<std::pair<uintptr_t, size_t>> slabs;  // address and bytes
    std::vector<ClassUse> classes;
    uint64_t free_page_bytes = 0;
    uint64_t largest_free_bytes = 0;
  };

  explicit Arena(const ArenaOptions& options);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // At least `bytes` (0 counts as 1), aligned to 64, not cleared. Null when the system or max_bytes
  // refuses.
  void* Allocate(size_t bytes);
  // REQUIRES: `data` came from Allocate of this arena and is not yet freed. Null is ignored.
  void Free(void* data);

  // Pins what the arena has and will have, as far as the CUDA runtime does it; once. For an arena that
  // was not made so: then what cannot be pinned is refused. REQUIRES: OpenCudaRuntime succeeded.
  void Pin();

  // Returns wholly free slabs to the system; the number of bytes given back.
  size_t Trim();

  ArenaStats Stats() const;
  // Looks at everything: for a profile, not for each run.
  Usage Use();

 private:
  struct Slab;
  struct Span;
  struct SizeClass;
  struct BySize {
    bool operator()(const Span* a, const Span* b) const;
  };

  static int ClassOf(size_t bytes);
  // The system is asked without a lock: a huge page takes milliseconds where the host has to find it,
  // and every run of every model takes pages (bench/swaps.ts: p99 2.1x beside a load of 400 MB).
  Span* TakePages(size_t pages);  // REQUIRES: pages_mutex_ not held; the span is large
  Slab* MapSlab(size_t pages);
  void UnmapSlab(Slab* slab);
  void Unmap(Slab* slab);
  void ReturnPages(Span* span);               // REQUIRES: pages_mutex_ held
  Span* SplitFree(Span* span, size_t pages);  // REQUIRES: pages_mutex_ held
  void Count(size_t bytes);

  const ArenaOptions options_;
  const bool huge_available_;
  std::unique_ptr<SizeClass[]> classes_;

  std::mutex pages_mutex_;
  std::set<Span*, BySize> free_spans_;  // protected by pages_mutex_
  std::set<Slab*> slabs_;               // protected by pages_mutex_

  std::atomic<bool> pins_{false};  // Pin was called
  std::atomic<uint64_t> reserved_{0};
  std::atomic<uint64_t> slab_count_{0};
  std::atomic<uint64_t> leased_{0};
  std::atomic<uint64_t> peak_{0};
  std::atomic<uint64_t> allocations_{0};
  std::atomic<uint64_t> frees_{0};
};

// Memory from elsewhere that a lease stands for; unmapped when it is destroyed.
class Mapping {
 public:
  virtual ~Mapping() = default;
  // Whether all of it can still be touched.
  virtual bool Intact() const = 0;
};

// A counted span. Whoever holds a Ref keeps the memory: a job in flight, a binding, a JS buffer.
class Lease : public RefCounted<Lease> {
 public:
  // Null when the arena is full.
  static Ref<Lease> Take(Arena* arena, size_t bytes);
  // Over memory that is not the arena's.
  static Ref<Lease> Over(uint8_t* data, size_t bytes, std::unique_ptr<Mapping> mapping);

  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  bool intact() const { return !mapping_ || mapping_->Intact(); }

  // Leases alive in the process.
  static uint64_t Live() { return live_.load(std::memory_order_relaxed); }

 private:
  friend class RefCounted<Lease>;
  Lease(Arena* arena, uint8_t* data, size_t bytes, std::unique_ptr<Mapping> mapping);
  ~Lease();

  Arena* const arena_;
  uint8_t* const data_;
  const size_t bytes_;
  const std::unique_ptr<Mapping> mapping_;  // null where the memory is the arena's
  static std::atomic<uint64_t> live_;
};

// Finds the lease that an address lies in, so that an async run can use memory from allocate() in
// place. Only leases that JS can see are entered. Thread-safe.
class LeaseTable {
 public:
  void Add(Lease* lease);
  void Remove(Lease* lease);
  // Null when [data, data + bytes) does not lie inside one lease.
  Ref<Lease> Find(const void* data, size_t bytes) const;

 private:
  mutable std::mutex mutex_;
  std::map<uintptr_t, Lease*> leases_;  // protected by mutex_; by first address
  std::atomic<size_t> size_{0};         // lets Find skip the lock while there are none
};

}  // namespace tercel
