// BatchPolicy: how many rows run together, how long they wait for each other, and who is turned away.
//
// Mechanism is the scheduler's, numbers come from the configuration; with a latency target the numbers
// are learnt: what a run of each size costs is measured as it happens, the size that gives the highest
// throughput inside the target is chosen, and requests that would arrive too late are refused. Time is
// passed in, so that a simulator can drive it (native/test/policy_test.cc).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tercel {

struct BatchOptions {
  uint32_t max_batch = 1;    // rows of one run; 1 is no batching
  int64_t max_delay_ns = 0;  // that a request waits for others while the batch is not full
  // Ascending. A batch of such a size goes at once; another one waits for the delay.
  std::vector<uint32_t> preferred;
  int64_t target_p99_ns = 0;  // from submission to the end of the run; 0 is none
};

// What a run costs by its rows. Not thread-safe.
class CostTable {
 public:
  void Add(uint32_t rows, int64_t ns);
  bool known() const { return runs_ > 0; }
  // The most rows that were seen in one run lately.
  uint32_t largest() const;
  // Nanoseconds expected, between sizes measured lately by interpolation; 0 while nothing is known.
  double Mean(uint32_t rows) const;
  // What a run seldom exceeds: the mean and three mean deviations.
  double Upper(uint32_t rows) const;

 private:
  struct Entry {
    double rows = 0;  // moving averages
    double mean = 0;
    double deviation = 0;
    uint32_t count = 0;
    uint64_t last = 0;  // the run that was counted last
  };
  // A size that was not run for so long says nothing any more: costs change with what else goes on.
  bool fresh(const Entry& entry) const { return entry.count > 0 && runs_ - entry.last < 2048; }
  static size_t IndexOf(uint32_t rows);
  double Interpolate(uint32_t rows, double Entry::*field) const;

  // 1 to 16 rows each, then four entries to a doubling.
  std::array<Entry, 16 + 4 * 16> entries_;
  uint64_t runs_ = 0;
};

// A moving window's 99th percentile, to 2%. Not thread-safe.
class LatencyWindow {
 public:
  void Add(int64_t ns);
  uint32_t count() const { return count_; }
  int64_t P99() const;
  void Clear();

 private:
  static constexpr int kPerDoubling = 32;
  std::array<uint32_t, 40 * kPerDoubling> counts_{};
  uint32_t count_ = 0;
};

// Not thread-safe: the scheduler calls it with its mutex held.
class BatchPolicy {
 public:
  void Set(const BatchOptions& options, int lanes);
  const BatchOptions& options() const { return options_; }

  // The most rows of a run now.
  uint32_t cap() const { return cap_; }
  int64_t delay_ns() const { return delay_ns_; }

  // How many of `ready` rows shall run now. 0: wait until *until, or until more are ready.
  // `oldest_ns`: when the first of them came.
  uint32_t Choose(uint32_t ready, int64_t oldest_ns, int64_t now, int64_t* until) const;

  // Nanoseconds from now until a request of `rows` is expected to be done, behind `rows_ahead` that
  // wait, when the next lane is free in `lane_free_ns`; 0 while nothing is known. `upper`: when it is
  // nearly sure to be done.
  int64_t Predict(uint32_t rows, uint64_t rows_ahead, int64_t lane_free_ns, bool upper) const;
  // What such a prediction may be at most for the latency target.
  int64_t limit_ns() const {
    return static_cast<int64_t>(static_cast<double>(options_.target_p99_ns) * margin_);
  }

  // A run of `rows` took `ns`.
  void OnRun(uint32_t rows, int64_t ns, int64_t now);
  // A request was done `ns` after it came.
  void OnDone(int64_t ns, int64_t now);

  const CostTable& cost() const { return cost_; }
  // The part of the target that predictions may fill, from what was measured.
  double margin() const { return margin_; }
  int64_t last_p99_ns() const { return last_p99_ns_; }

 private:
  void ChooseCap();
  void LearnDelay(int64_t now);

  int lanes_ = 1;
  BatchOptions options_;
  CostTable cost_;
  uint32_t cap_ = 1;
  int64_t delay_ns_ = 0;
  double margin_ = 0.9;

  // The window that the margin is set by.
  LatencyWindow window_;
  int64_t window_start_ns_ = 0;
  int64_t last_p99_ns_ = 0;
  uint32_t runs_ = 0;

  // Trying delays: epochs with and without the next one, in turns.
  struct Epoch {
    int64_t start_ns = 0;
    uint64_t rows = 0;
    int64_t busy_ns = 0;
  } epoch_;
  double gains_[2] = {0, 0};  // rows a second, summed over epochs without and with the trial
  int trial_epoch_ = 0;       // 0: no trial
  int rest_epochs_ = 0;       // until the next trial
  int64_t settled_delay_ns_ = 0;
  int64_t trial_delay_ns_ = 0;
};

}  // namespace tercel
