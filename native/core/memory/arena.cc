#include "memory/arena.h"

#include <algorithm>
#include <new>

namespace tercel {

namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kSlabBytes = size_t{16} << 20;
constexpr size_t kSlabPages = kSlabBytes / kPageBytes;
// Slabs of one large allocation are as large as that needs, in steps of a huge page.
constexpr size_t kStepBytes = size_t{2} << 20;
constexpr size_t kHeaderPages = 9;  // Slab: its page map of 8 bytes a page, and some fields
constexpr size_t kSpanPages = 16;   // of small objects
constexpr size_t kMaxSmall = 16384;
constexpr size_t kAlignment = 64;
// Pages are counted in 32 bits; no machine has more.
constexpr size_t kMaxBytes = size_t{1} << 43;
// 64 to 1024 in steps of 64, then four sizes to a doubling up to 16 KiB.
constexpr int kStepClasses = 16;
constexpr int kClasses = kStepClasses + 4 * 4;
constexpr int kLarge = -1;

size_t ClassBytes(int index) {
  if (index < kStepClasses) return kAlignment * (index + 1);
  const int above = index - kStepClasses;
  const size_t base = size_t{1024} << (above / 4);
  return base + base / 4 * (above % 4 + 1);
}

}  // namespace

struct Arena::Span {
  Slab* slab;
  uint32_t first_page;
  uint32_t pages;
  int size_class = kLarge;
  bool free = false;
  // Small objects, protected by the size class's mutex.
  void* free_list = nullptr;
  uint32_t used = 0;
  uint32_t carved = 0;  // objects handed out at least once
  uint32_t capacity = 0;
  Span* next = nullptr;  // in the class's list of spans with room
  Span* prev = nullptr;

  uintptr_t address() const {
    return reinterpret_cast<uintptr_t>(slab) + size_t{first_page} * kPageBytes;
  }
  uint8_t* data() const { return reinterpret_cast<uint8_t*>(address()); }
};

struct Arena::Slab {
  size_t bytes;
  uint32_t pages;
  bool pinned;  // by Pin, or after it
  // The span that a page belongs to: every page of a small span, the first and last of others.
  // Pages beyond kSlabPages exist only in slabs with one allocation and need no entry.
  Span* page_map[kSlabPages];
};

struct Arena::SizeClass {
  std::mutex mutex;
  Span* with_room = nullptr;  // protected by mutex
  size_t bytes = 0;           // constant

  void Link(Span* span) {
    span->prev = nullptr;
    span->next = with_room;
    if (with_room) with_room->prev = span;
    with_room = span;
  }
  void Unlink(Span* span) {
    (span->prev ? span->prev->next : with_room) = span->next;
    if (span->next) span->next->prev = span->prev;
    span->next = span->prev = nullptr;
  }
};

bool Arena::BySize::operator()(const Span* a, const Span* b) const {
  if (a->pages != b->pages) return a->pages < b->pages;
  return a->address() < b->address();
}

Arena::Arena(const ArenaOptions& options)
    : options_(options),
      huge_available_(options.pages.huge && HugePagesAvailable()),
      classes_(new SizeClass[kClasses]) {
  static_assert(sizeof(Slab) <= kHeaderPages * kPageBytes, "the header must fit its pages");
  for (int i = 0; i < kClasses; ++i) classes_[i].bytes = ClassBytes(i);
}

Arena::~Arena() {
  for (Slab* slab : slabs_) {
    for (size_t page = kHeaderPages; page < slab->pages && page < kSlabPages;) {
      Span* span = slab->page_map[page];
      page += span->pages;
      delete span;
    }
    Unmap(slab);
  }
}

int Arena::ClassOf(size_t bytes) {
  if (bytes <= 1024) return bytes == 0 ? 0 : static_cast<int>((bytes - 1) / kAlignment);
  if (bytes > kMaxSmall) return kLarge;
  const int doubling = 63 - __builtin_clzll(bytes - 1) - 10;  // 0 for 1025..2048
  const size_t base = size_t{1024} << doubling;
  return kStepClasses + doubling * 4 + static_cast<int>((bytes - base - 1) / (base / 4));
}

void Arena::Count(size_t bytes) {
  allocations_.fetch_add(1, std::memory_order_relaxed);
  const uint64_t now = leased_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  uint64_t peak = peak_.load(std::memory_order_relaxed);
  while (now > peak && !peak_.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
}

void* Arena::Allocate(size_t bytes) {
  const int index = ClassOf(bytes);
  if (index == kLarge) {
    if (bytes > kMaxBytes) return nullptr;
    Span* span = TakePages((bytes + kPageBytes - 1) / kPageBytes);
    if (!span) return nullptr;
    Count(span->pages * kPageBytes);
    return span->data();
  }
  SizeClass& size_class = classes_[index];
  std::unique_lock<std::mutex> lock(size_class.mutex);
  Span* span = size_class.with_room;
  if (!span) {
    // Without the lock: others free and take objects of this size meanwhile, and may bring a span too.
    lock.unlock();
    span = TakePages(kSpanPages);
    if (!span) return nullptr;
    span->free_list = nullptr;
    span->used = span->carved = 0;
    span->capacity = static_cast<uint32_t>(kSpanPages * kPageBytes / size_class.bytes);
    lock.lock();
    {
      std::lock_guard<std::mutex> pages_lock(pages_mutex_);
      span->size_class = index;
      for (uint32_t i = 0; i < kSpanPages; ++i) span->slab->page_map[span->first_page + i] = span;
    }
    size_class.Link(span);
  }
  void* object;
  if (span->free_list) {
    object = span->free_list;
    span->free_list = *static_cast<void**>(object);
  } else {
    object = span->data() + size_class.bytes * span->carved++;
  }
  if (++span->used == span->capacity) size_class.Unlink(span);
  Count(size_class.bytes);
  return object;
}

void Arena::Free(void* data) {
  if (!data) return;
  frees_.fetch_add(1, std::memory_order_relaxed);
  const uintptr_t address = reinterpret_cast<uintptr_t>(data);
  auto* slab = reinterpret_cast<Slab*>(address & ~(kSlabBytes - 1));
  // The entry cannot change while the allocation is alive.
  Span* span = slab->page_map[(address & (kSlabBytes - 1)) / kPageBytes];
  if (span->size_class == kLarge) {
    leased_.fetch_sub(span->pages * kPageBytes, std::memory_order_relaxed);
    std::lock_guard<std::mutex> lock(pages_mutex_);
    ReturnPages(span);
    return;
  }
  SizeClass& size_class = classes_[span->size_class];
  leased_.fetch_sub(size_class.bytes, std::memory_order_relaxed);
  std::lock_guard<std::mutex> lock(size_class.mutex);
  *static_cast<void**>(data) = span->free_list;
  span->free_list = data;
  if (span->used-- == span->capacity) size_class.Link(span);
  // Keep the class's last span: freeing and taking one object in turn must not move pages.
  if (span->used == 0 && (span->next || span->prev)) {
    size_class.Unlink(span);
    std::lock_guard<std::mutex> pages_lock(pages_mutex_);
    span->size_class = kLarge;
    ReturnPages(span);
  }
}

namespace {
size_t SlabBytesFor(size_t pages) {
  const size_t bytes = (pages + kHeaderPages) * kPageBytes;
  return std::max(kSlabBytes, (bytes + kStepBytes - 1) / kStepBytes * kStepBytes);
}
}  // namespace

Arena::Slab* Arena::MapSlab(size_t pages) {
  const size_t bytes = SlabBytesFor(pages);
  const uint64_t reserved = reserved_.fetch_add(bytes) + bytes;
  void* memory = options_.max_bytes && reserved > options_.max_bytes
                     ? nullptr
                     : options_.map(bytes, kSlabBytes, options_.pages);
  if (!memory) {
    reserved_.fetch_sub(bytes);
    return nullptr;
  }
  auto* slab = static_cast<Slab*>(memory);  // zeroed by the system, now: a huge page of it
  slab->bytes = bytes;
  slab->pages = static_cast<uint32_t>(bytes / kPageBytes);
  slab_count_.fetch_add(1);
  return slab;
}

void Arena::UnmapSlab(Slab* slab) {
  reserved_.fetch_sub(slab->bytes);
  slab_count_.fetch_sub(1);
  Unmap(slab);
}

void Arena::Unmap(Slab* slab) {
  if (slab->pinned) UnpinPages(slab);
  options_.unmap(slab, slab->bytes, options_.pages);
}

void Arena::Pin() {
  if (options_.pages.pin || pins_.exchange(true)) return;
  std::lock_guard<std::mutex> lock(pages_mutex_);
  for (Slab* slab : slabs_) slab->pinned = slab->pinned || PinPages(slab, slab->bytes);
}

Arena::Span* Arena::TakePages(size_t pages) {
  Span key{};
  key.pages = static_cast<uint32_t>(pages);
  std::unique_lock<std::mutex> lock(pages_mutex_);
  auto found = free_spans_.lower_bound(&key);
  // An oversized slab's span is never split: it serves only what nearly fills it. What is mapped for an
  // allocation is at most an eighth more than that needs, so it serves the next one of that size.
  if (found != free_spans_.end() &&
      ((*found)->slab->pages == kSlabPages || (*found)->pages <= pages + pages / 4)) {
    Span* span = *found;
    free_spans_.erase(found);
    span->free = false;
    return SplitFree(span, pages);
  }
  lock.unlock();
  auto* span = new (std::nothrow) Span{};
  Slab* slab = span ? MapSlab(pages) : nullptr;
  // Free slabs of other sizes may be what is missing.
  if (span && !slab && (!options_.max_bytes || SlabBytesFor(pages) <= options_.max_bytes)) {
    (void)Trim();
    slab = MapSlab(pages);
  }
  if (!slab) {
    delete span;
    return nullptr;
  }
  span->slab = slab;
  span->first_page = kHeaderPages;
  span->pages = slab->pages - kHeaderPages;
  // Without the lock, as it takes milliseconds; Pin may come in between.
  slab->pinned = pins_ && PinPages(slab, slab->bytes);
  lock.lock();
  if (pins_ && !slab->pinned) slab->pinned = PinPages(slab, slab->bytes);
  slabs_.insert(slab);
  return SplitFree(span, pages);
}

namespace {
template <typename SlabT, typename SpanT>
void MapEnds(SlabT* slab, SpanT* span) {
  slab->page_map[span->first_page] = span;
  const size_t last = span->first_page + span->pages - 1;
  if (last < kSlabPages) slab->page_map[last] = span;
}
}  // namespace

Arena::Span* Arena::SplitFree(Span* span, size_t pages) {
  // A slab larger than the standard serves one allocation: its tail has no page map.
  if (span->pages > pages && span->slab->pages == kSlabPages) {
    if (Span* rest = new (std::nothrow) Span{}) {
      rest->slab = span->slab;
      rest->first_page = span->first_page + static_cast<uint32_t>(pages);
      rest->pages = span->pages - static_cast<uint32_t>(pages);
      rest->free = true;
      span->pages = static_cast<uint32_t>(pages);
      MapEnds(rest->slab, rest);
      free_spans_.insert(rest);
    }
  }
  MapEnds(span->slab, span);
  return span;
}

void Arena::ReturnPages(Span* span) {
  Slab* slab = span->slab;
  auto absorb = [&](Span* neighbour) {
    free_spans_.erase(neighbour);
    if (neighbour->first_page < span->first_page) span->first_page = neighbour->first_page;
    span->pages += neighbour->pages;
    delete neighbour;
  };
  if (slab->pages == kSlabPages) {
    if (span->first_page > kHeaderPages) {
      Span* before = slab->page_map[span->first_page - 1];
      if (before->free) absorb(before);
    }
    const size_t end = span->first_page + span->pages;
    if (end < kSlabPages) {
      Span* after = slab->page_map[end];
      if (after->free) absorb(after);
    }
  }
  span->free = true;
  MapEnds(slab, span);
  free_spans_.insert(span);
}

size_t Arena::Trim() {
  // The spans that the classes keep for themselves go first, so that their slabs can go.
  for (int i = 0; i < kClasses; ++i) {
    SizeClass& size_class = classes_[i];
    std::lock_guard<std::mutex> lock(size_class.mutex);
    for (Span* span = size_class.with_room; span;) {
      Span* next = span->next;
      if (span->used == 0) {
        size_class.Unlink(span);
        std::lock_guard<std::mutex> pages_lock(pages_mutex_);
        span->size_class = kLarge;
        ReturnPages(span);
      }
      span = next;
    }
  }
  std::vector<Slab*> whole;
  std::unique_lock<std::mutex> lock(pages_mutex_);
  for (auto it = free_spans_.begin(); it != free_spans_.end();) {
    Span* span = *it;
    Slab* slab = span->slab;
    if (span->pages != slab->pages - kHeaderPages) {
      ++it;
      continue;
    }
    it = free_spans_.erase(it);
    slabs_.erase(slab);
    whole.push_back(slab);
    delete span;
  }
  lock.unlock();
  size_t given_back = 0;
  for (Slab* slab : whole) {
    given_back += slab->bytes;
    UnmapSlab(slab);
  }
  return given_back;
}

ArenaStats Arena::Stats() const {
  ArenaStats stats;
  stats.reserved_bytes = reserved_.load();
  stats.leased_bytes = leased_.load();
  stats.peak_leased_bytes = peak_.load();
  stats.allocations = allocations_.load();
  stats.frees = frees_.load();
  stats.slabs = slab_count_.load();
  stats.huge_pages = huge_available_;
  stats.locked = options_.pages.lock;
  stats.pinned = options_.pages.pin || pins_;
  return stats;
}

Arena::Usage Arena::Use() {
  Usage usage;
  for (int i = 0; i < kClasses; ++i) {
    SizeClass& size_class = classes_[i];
    ClassUse use;
    use.object_bytes = size_class.bytes;
    std::lock_guard<std::mutex> lock(size_class.mutex);
    for (const Span* span = size_class.with_room; span; span = span->next) {
      ++use.spans;
      use.free_objects += span->capacity - span->used;
    }
    usage.classes.push_back(use);
  }
  std::lock_guard<std::mutex> lock(pages_mutex_);
  for (const Slab* slab : slabs_) {
    usage.slabs.emplace_back(reinterpret_cast<uintptr_t>(slab), slab->bytes);
  }
  for (const Span* span : free_spans_) {
    usage.free_page_bytes += span->pages * kPageBytes;
    usage.largest_free_bytes = std::max<uint64_t>(usage.largest_free_bytes, span->pages * kPageBytes);
  }
  return usage;
}

std::atomic<uint64_t> Lease::live_{0};

Lease::Lease(Arena* arena, uint8_t* data, size_t bytes, std::unique_ptr<Mapping> mapping)
    : arena_(arena), data_(data), bytes_(bytes), mapping_(std::move(mapping)) {
  live_.fetch_add(1, std::memory_order_relaxed);
}

Lease::~Lease() {
  if (arena_) arena_->Free(data_);
  live_.fetch_sub(1, std::memory_order_relaxed);
}

Ref<Lease> Lease::Take(Arena* arena, size_t bytes) {
  void* data = arena->Allocate(bytes);
  if (!data) return nullptr;
  return Ref<Lease>(new Lease(arena, static_cast<uint8_t*>(data), bytes, nullptr));
}

Ref<Lease> Lease::Over(uint8_t* data, size_t bytes, std::unique_ptr<Mapping> mapping) {
  return Ref<Lease>(new Lease(nullptr, data, bytes, std::move(mapping)));
}

void LeaseTable::Add(Lease* lease) {
  std::lock_guard<std::mutex> lock(mutex_);
  leases_[reinterpret_cast<uintptr_t>(lease->data())] = lease;
  size_.store(leases_.size(), std::memory_order_relaxed);
}

void LeaseTable::Remove(Lease* lease) {
  std::lock_guard<std::mutex> lock(mutex_);
  leases_.erase(reinterpret_cast<uintptr_t>(lease->data()));
  size_.store(leases_.size(), std::memory_order_relaxed);
}

Ref<Lease> LeaseTable::Find(const void* data, size_t bytes) const {
  if (size_.load(std::memory_order_relaxed) == 0) return nullptr;
  const uintptr_t address = reinterpret_cast<uintptr_t>(data);
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = leases_.upper_bound(address);
  if (it == leases_.begin()) return nullptr;
  Lease* lease = std::prev(it)->second;
  if (address - std::prev(it)->first + bytes > lease->bytes()) return nullptr;
  return Ref<Lease>(lease);
}

}  // namespace tercel
