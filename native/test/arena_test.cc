#include "memory/arena.h"

#include <cstring>
#include <random>
#include <semaphore>
#include <thread>

#include "check.h"

using namespace tercel;

TEST(ArenaAlignsAndCounts) {
  Arena arena({});
  std::vector<void*> all;
  for (size_t bytes :
       {size_t{0}, size_t{1}, size_t{64}, size_t{65}, size_t{1024}, size_t{1025}, size_t{1280},
        size_t{1281}, size_t{16384}, size_t{16385}, size_t{1} << 20, size_t{40} << 20}) {
    void* data = arena.Allocate(bytes);
    CHECK(data != nullptr);
    CHECK_EQ(reinterpret_cast<uintptr_t>(data) % 64, uintptr_t{0});
    std::memset(data, 0xab, bytes);
    all.push_back(data);
  }
  ArenaStats stats = arena.Stats();
  CHECK_EQ(stats.allocations, all.size());
  CHECK(stats.leased_bytes >= (size_t{41} << 20));
  CHECK(stats.reserved_bytes >= stats.leased_bytes);
  CHECK_EQ(stats.peak_leased_bytes, stats.leased_bytes);
  for (void* data : all) arena.Free(data);
  stats = arena.Stats();
  CHECK_EQ(stats.leased_bytes, uint64_t{0});
  CHECK_EQ(stats.frees, stats.allocations);
  CHECK(stats.peak_leased_bytes > 0);
  arena.Trim();
  CHECK_EQ(arena.Stats().reserved_bytes, uint64_t{0});
  CHECK_EQ(arena.Stats().slabs, uint64_t{0});
}

TEST(ArenaReusesAndCoalesces) {
  Arena arena({});
  // Three neighbours, freed in every order, become one span again.
  for (const int order : {0, 1, 2, 3, 4, 5}) {
    void* spans[3];
    for (void*& span : spans) span = arena.Allocate(5 << 20);
    const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (int i : orders[order]) arena.Free(spans[i]);
    void* whole = arena.Allocate(15 << 20);
    CHECK_EQ(arena.Stats().slabs, uint64_t{1});
    arena.Free(whole);
  }
}

TEST(ArenaKeepsLargeSlabsForLargeSpans) {
  Arena arena({});
  void* large = arena.Allocate(40 << 20);
  arena.Free(large);
  void* small = arena.Allocate(100 << 10);
  CHECK_EQ(arena.Stats().slabs, uint64_t{2});
  void* again = arena.Allocate(39 << 20);
  CHECK(again == large);
  arena.Free(small);
  arena.Free(again);
}

TEST(ArenaReusesSlabsOfEverySize) {
  for (size_t megabytes = 1; megabytes < 100; ++megabytes) {
    Arena arena({});
    for (int i = 0; i < 3; ++i) arena.Free(arena.Allocate(megabytes << 20));
    CHECK_EQ(arena.Stats().slabs, uint64_t{1});
    CHECK(arena.Stats().reserved_bytes <= std::max<size_t>(16, megabytes + 4) << 20);
  }
}

TEST(ArenaGivesUpFreeSlabsForOneThatDoesNotFit) {
  ArenaOptions options;
  options.max_bytes = size_t{64} << 20;
  Arena arena(options);
  arena.Free(arena.Allocate(40 << 20));
  void* large = arena.Allocate(60 << 20);
  CHECK(large != nullptr);
  CHECK(arena.Allocate(1 << 20) == nullptr);
  arena.Free(large);
}

TEST(ArenaRefusesPastItsLimit) {
  ArenaOptions options;
  options.max_bytes = 20 << 20;
  Arena arena(options);
  CHECK(arena.Allocate(30 << 20) == nullptr);
  void* fits = arena.Allocate(10 << 20);
  CHECK(fits != nullptr);
  CHECK(arena.Allocate(10 << 20) == nullptr);
  CHECK(arena.Allocate(SIZE_MAX) == nullptr);
  CHECK(arena.Allocate(SIZE_MAX / 2) == nullptr);
  arena.Free(fits);
}

TEST(ArenaSurvivesRandomUseFromThreads) {
  Arena arena({});
  auto work = [&arena](unsigned seed) {
    std::mt19937 random(seed);
    struct Block {
      uint8_t* data;
      size_t bytes;
      uint8_t mark;
    };
    std::vector<Block> blocks;
    for (int i = 0; i < 20000; ++i) {
      if (blocks.size() < 64 && random() % 3 != 0) {
        const size_t kind = random() % 20;
        const size_t bytes = kind == 0 ? random() % (1 << 20) : random() % (kind < 6 ? 20000 : 600);
        auto* data = static_cast<uint8_t*>(arena.Allocate(bytes));
        const auto mark = static_cast<uint8_t>(random());
        // Two blocks that overlap would overwrite each other's ends.
        if (bytes) data[0] = data[bytes - 1] = mark;
        blocks.push_back({data, bytes, mark});
      } else if (!blocks.empty()) {
        const size_t at = random() % blocks.size();
        const Block block = blocks[at];
        if (block.bytes && (block.data[0] != block.mark || block.data[block.bytes - 1] != block.mark)) {
          test::Fail(__FILE__, __LINE__, "a block was overwritten");
        }
        arena.Free(block.data);
        blocks[at] = blocks.back();
        blocks.pop_back();
      }
      if (i % 5000 == 4999) arena.Trim();
    }
    for (const Block& block : blocks) arena.Free(block.data);
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) threads.emplace_back(work, i + 1);
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(arena.Stats().leased_bytes, uint64_t{0});
  CHECK_EQ(arena.Stats().allocations, arena.Stats().frees);
  arena.Trim();
  CHECK_EQ(arena.Stats().reserved_bytes, uint64_t{0});
}

// A system that takes its time for pages holds up who asked for them, and nobody else.
TEST(ArenaServesOthersWhileTheSystemIsAsked) {
  static std::binary_semaphore asked(0), answer(0);
  static std::atomic<bool> slow{false};
  ArenaOptions options;
  options.map = [](size_t bytes, size_t alignment, const PageOptions& pages) {
    if (slow) {
      asked.release();
      answer.acquire();
    }
    return MapPages(bytes, alignment, pages);
  };
  options.unmap = [](void* data, size_t bytes, const PageOptions& pages) {
    if (slow) {
      asked.release();
      answer.acquire();
    }
    UnmapPages(data, bytes, pages);
  };
  Arena arena(options);
  void* page = arena.Allocate(1 << 20);  // there is a slab now, with room
  auto others = [&] {
    void* large = arena.Allocate(2 << 20);
    void* small = arena.Allocate(256);
    CHECK(large != nullptr && small != nullptr);
    arena.Free(large);
    arena.Free(small);
    (void)arena.Stats();
  };
  slow = true;
  void* huge = nullptr;
  std::thread asking([&] { huge = arena.Allocate(100 << 20); });
  asked.acquire();
  others();
  answer.release();
  asking.join();
  CHECK(huge != nullptr);
  arena.Free(huge);
  std::thread trimming([&] { CHECK(arena.Trim() >= (100 << 20)); });
  asked.acquire();
  others();
  answer.release();
  trimming.join();
  slow = false;
  arena.Free(page);
}

TEST(LeaseIsCountedAndFound) {
  Arena arena({});
  LeaseTable table;
  const uint64_t before = Lease::Live();
  Ref<Lease> lease = Lease::Take(&arena, 1000);
  CHECK_EQ(Lease::Live(), before + 1);
  CHECK(!table.Find(lease->data(), 10));
  table.Add(lease.get());
  CHECK(table.Find(lease->data(), 1000).get() == lease.get());
  CHECK(table.Find(lease->data() + 990, 10).get() == lease.get());
  CHECK(!table.Find(lease->data() + 990, 11));
  CHECK(!table.Find(lease->data() - 1, 1));
  table.Remove(lease.get());
  CHECK(!table.Find(lease->data(), 10));
  Ref<Lease> second = lease;
  lease.reset();
  CHECK_EQ(Lease::Live(), before + 1);
  second.reset();
  CHECK_EQ(Lease::Live(), before);
  CHECK_EQ(arena.Stats().leased_bytes, uint64_t{0});
}
