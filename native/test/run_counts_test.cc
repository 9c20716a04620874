// Runs by their rows, counted by many threads.
#include "base/run_counts.h"

#include <thread>
#include <vector>

#include "check.h"

using namespace tercel;

TEST(RunCountsAddUpFromManyThreads) {
  RunCounts counts;
  CHECK_EQ(counts.last_ns(), int64_t{0});
  constexpr uint32_t kThreads = 4, kRuns = 20'000, kSizes = 40;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&counts] {
      for (uint32_t i = 0; i < kRuns; ++i) counts.Add(1 + i % kSizes, i % 16 ? 0 : 1000);
      counts.AddFailed(false);
      counts.AddFailed(true);
    });
  }
  // Read meanwhile, as statistics are.
  for (int i = 0; i < 100; ++i) (void)counts.Read(0);
  for (std::thread& thread : threads) thread.join();
  const std::vector<BatchCount> sizes = counts.Read(5);
  CHECK_EQ(sizes.size(), size_t{kSizes});
  for (uint32_t i = 0; i < kSizes; ++i) {
    CHECK_EQ(sizes[i].rows, i + 1);
    CHECK_EQ(sizes[i].runs, uint64_t{kThreads * kRuns / kSizes});
  }
  CHECK_EQ(counts.failed(), uint64_t{kThreads});
  CHECK_EQ(counts.invalid(), uint64_t{kThreads});
  CHECK(counts.last_ns() > 0);
}

TEST(RunCountsHaveATimeForEachSize) {
  RunCounts counts;
  counts.Add(5, 1000);
  counts.Add(5, 3000);
  counts.Add(5, 0);
  counts.Add(1, 0);
  const std::vector<BatchCount> sizes = counts.Read(7);
  CHECK_EQ(sizes.size(), size_t{2});
  CHECK_EQ(sizes[0].run_ns, int64_t{7});         // not timed: the typical time
  CHECK_EQ(sizes[1].run_ns, int64_t{3 * 2000});  // as others of the size took
}

TEST(RunCountsLoseNoRunOfTooManySizes) {
  RunCounts counts;
  uint64_t runs = 0;
  for (uint32_t rows = 1; rows <= 1000; ++rows) counts.Add(rows, 0);
  for (const BatchCount& size : counts.Read(1)) runs += size.runs;
  CHECK_EQ(runs, uint64_t{1000});
  // The sizes that found room are still their own.
  counts.Add(1, 0);
  CHECK_EQ(counts.Read(1)[0].rows, uint32_t{1});
}
