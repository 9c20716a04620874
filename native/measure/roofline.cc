#include "measure/roofline.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "base/clock.h"

// The widest multiply-adds that the processor has; chosen when the program starts, which is before
// ThreadSanitizer is ready for it.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define TERCEL_WIDEST __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define TERCEL_WIDEST
#endif

namespace tercel {

namespace {

constexpr int64_t kBudgetNs = 150'000'000;
constexpr int kVectors = 12;  // independent chains: two units, four to six cycles each
constexpr int kLanes = 16;    // floats of the widest vector
constexpr int kRounds = 20'000;
constexpr size_t kFloats = size_t{16} << 20;  // 64 MiB for each thread

TERCEL_WIDEST float MultiplyAdd(float* sums, float by, float plus, int rounds) {
  float local[kVectors][kLanes];
  for (int v = 0; v < kVectors; ++v) {
    for (int i = 0; i < kLanes; ++i) local[v][i] = sums[v * kLanes + i];
  }
  for (int round = 0; round < rounds; ++round) {
    for (int v = 0; v < kVectors; ++v) {
      for (int i = 0; i < kLanes; ++i) local[v][i] = local[v][i] * by + plus;
    }
  }
  float sum = 0;
  for (int v = 0; v < kVectors; ++v) {
    for (int i = 0; i < kLanes; ++i) sum += local[v][i];
  }
  return sum;
}

// a = b * s + c
TERCEL_WIDEST void Triad(float* a, const float* b, const float* c, float s, size_t count) {
  for (size_t i = 0; i < count; ++i) a[i] = b[i] * s + c[i];
}

// The best of what `once` does within the budget, added up over threads; `once` returns its work.
template <typename Make>
double Best(int threads, Make make) {
  std::vector<double> best(static_cast<size_t>(threads));
  auto work = [&](size_t index) {
    auto once = make();
    const int64_t until = NowNs() + kBudgetNs;
    do {
      const int64_t start = NowNs();
      const double done = once();
      const int64_t ns = std::max<int64_t>(1, NowNs() - start);
      best[index] = std::max(best[index], done * 1e9 / static_cast<double>(ns));
    } while (NowNs() < until);
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work, static_cast<size_t>(i));
  work(0);
  for (std::thread& thread : others) thread.join();
  double sum = 0;
  for (const double rate : best) sum += rate;
  return sum;
}

}  // namespace

Roof MeasureRoof(int threads) {
  Roof roof;
  roof.flops_per_second = Best(threads, [] {
    return [sums = std::vector<float>(kVectors * kLanes, 1.0f)]() mutable {
      volatile float sink = MultiplyAdd(sums.data(), 0.999f, 0.001f, kRounds);
      (void)sink;
      return 2.0 * kVectors * kLanes * kRounds;
    };
  });
  roof.bytes_per_second = Best(threads, [] {
    const size_t part = kFloats / 4;
    return [part, data = std::vector<float>(kFloats, 1.0f)]() mutable {
      Triad(data.data(), data.data() + part, data.data() + 2 * part, 0.5f, part);
      return 3.0 * static_cast<double>(part * sizeof(float));
    };
  });
  return roof;
}

}  // namespace tercel
