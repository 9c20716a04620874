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

// What a run costs by its rows: the shape of the curve, learnt slowly, times a level that follows the
// machine. Whatever else slows it down slows all sizes alike, and must not look like one of them. Not
// thread-safe.
class CostTable {
 public:
  void Add(uint32_t rows, int64_t ns);
  bool known() const { return runs_ > 0; }
  // The most rows that were seen in one run lately.
  uint32_t largest() const;
  // Nanoseconds expected, between sizes measured lately by interpolation; 0 while nothing is known.
  double Mean(uint32_t rows) const;
  // The same at the level of the last tens of runs: for what is not decided anew for each.
  double Usual(uint32_t rows) const;

 private:
  struct Entry {
    double rows = 0;  // moving averages
    double ns = 0;    // at level 1
    uint32_t count = 0;
    uint64_t last = 0;  // the run that was counted last
  };
  // A size that was not run for so long says nothing any more.
  bool fresh(const Entry& entry) const { return entry.count > 0 && runs_ - entry.last < 8192; }
  static size_t IndexOf(uint32_t rows);
  double AtLevelOne(uint32_t rows) const;
  void Fit();

  // 1 to 16 rows each, then four entries to a doubling.
  std::array<Entry, 16 + 4 * 16> entries_;
  double level_ = 1;
  double usual_level_ = 1;
  // The straight line through all that is fresh, at level 1.
  double base_ = 0;
  double per_row_ = 0;
  uint64_t runs_ = 0;
};

// The 99th percentile, to 2%, of what came lately. Not thread-safe.
class LatencyWindow {
 public:
  void Add(int64_t ns);
  int64_t P99() const;
  // Lets what was counted until now count for a part.
  void Fade(double part);

 private:
  static constexpr int kPerDoubling = 32;
  std::array<float, 40 * kPerDoubling> counts_{};
  float count_ = 0;
};

// Not thread-safe: the scheduler calls it with its mutex held.
class BatchPolicy {
 public:
  void Set(const BatchOptions& options, int lanes);
  const BatchOptions& options() const { return options_; }

  // The most rows of a run now.
  uint32_t cap() const { return cap_; }
  int64_t delay_ns() const { return delay_ns_; }
  // The most rows that may wait and still be done in time; a bound in rows and not in time, because
  // what is left of the run that goes on is the least certain of all.
  uint64_t queue_rows() const { return queue_rows_; }

  // How many of `ready` rows shall run now. 0: wait until *until, or until more are ready.
  // `oldest_ns`: when the first of them came.
  uint32_t Choose(uint32_t ready, int64_t oldest_ns, int64_t now, int64_t* until) const;

  // Nanoseconds from now until a request of `rows` is expected to be done, behind `rows_ahead` that
  // wait, when the next lane is free in `lane_free_ns`; 0 while nothing is known.
  int64_t Predict(uint32_t rows, uint64_t rows_ahead, int64_t lane_free_ns) const;

  // A run of `rows` took `ns`.
  void OnRun(uint32_t rows, int64_t ns, int64_t now);
  // A request was turned away for the target's sake.
  void OnRefused() { refused_ = true; }
  // A request was done `ns` after it came.
  void OnDone(int64_t ns, int64_t now);

  const CostTable& cost() const { return cost_; }
  // The part of the target that predictions of the usual case may fill: learnt, it is what stands for
  // the spread.
  double margin() const { return margin_; }
  int64_t last_p99_ns() const { return last_p99_ns_; }

 private:
  double limit_ns() const { return static_cast<double>(options_.target_p99_ns) * margin_; }
  void ChooseCap();
  void LearnDelay(int64_t now);

  int lanes_ = 1;
  BatchOptions options_;
  CostTable cost_;
  uint32_t cap_ = 1;
  uint64_t queue_rows_ = UINT64_MAX;
  int64_t delay_ns_ = 0;
  double margin_ = 0.75;

  // The window that the margin is set by.
  LatencyWindow window_;
  int64_t window_start_ns_ = 0;
  uint32_t window_requests_ = 0;
  uint32_t late_ = 0;  // of these
  int64_t last_p99_ns_ = 0;
  uint32_t runs_ = 0;
  bool refused_ = false;  // in this window

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
