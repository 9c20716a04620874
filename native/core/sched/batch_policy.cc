#include "sched/batch_policy.h"

#include <algorithm>
#include <cmath>

namespace tercel {

namespace {

// A larger batch must gain so much throughput to be worth its latency.
constexpr double kWorthMore = 1.02;
// The margin moves between these, in windows of at least so many requests and so much time.
constexpr double kLeastMargin = 0.25;
constexpr double kMostMargin = 1;
// A request is late from so far below the target on: clients count what comes before it is here.
constexpr double kHeadroom = 1.08;
// The margin moves by so much of how far the part of late requests is from the part that may be, and
// down by so much at most: one stall of the machine must not cost seconds. Found by simulation, on
// quiet and noisy machines alike; 1% may be late, and this aims lower because stalls come in clusters.
constexpr double kGain = 0.7;
constexpr double kLatePart = 0.006;
constexpr double kMostDown = 0.1;
// What came before a window still counts for p99 as it is told.
constexpr double kFade = 0.8;
// The line through all sizes counts as much as so many runs of one.
constexpr double kLineRuns = 32;
constexpr uint32_t kMostRuns = 64;
constexpr uint64_t kFitEvery = 8;  // runs
constexpr uint32_t kWindowRequests = 200;
constexpr int64_t kWindowNs = 100'000'000;
// Trying a delay: epochs of so long, as many pairs, and the gain that is no accident.
constexpr int64_t kEpochNs = 50'000'000;
constexpr int kTrialEpochs = 6;
constexpr int kRestEpochs = 40;
constexpr double kWorthDelay = 1.03;
constexpr int64_t kFirstDelayNs = 50'000;

int Log2(uint32_t value) { return 31 - __builtin_clz(value); }

}  // namespace

size_t CostTable::IndexOf(uint32_t rows) {
  if (rows <= 16) return rows - 1;
  const int doubling = Log2(rows - 1) - 4;  // 0 for 17 to 32
  const uint32_t base = 16u << doubling;
  const size_t index = 16 + static_cast<size_t>(doubling) * 4 + (rows - base - 1) / (base / 4);
  return std::min<size_t>(index, 16 + 4 * 16 - 1);
}

void CostTable::Add(uint32_t rows, int64_t ns) {
  Entry& entry = entries_[IndexOf(rows)];
  const auto sample = static_cast<double>(std::max<int64_t>(ns, 1));
  ++runs_;
  if (!fresh(entry)) {
    entry = {static_cast<double>(rows), sample / level_, 1, runs_};
    Fit();
    return;
  }
  // A stall counts, but not for all of its length: it says nothing about the runs to come.
  const double bounded = entry.count < 4 ? sample : std::min(sample, entry.ns * level_ * 2);
  if (entry.count >= 4) level_ *= 1 + (bounded / (entry.ns * level_) - 1) / 8;
  usual_level_ += (level_ - usual_level_) / 16;
  const double weight = 1.0 / std::min(entry.count + 1, kMostRuns);
  entry.rows += (rows - entry.rows) * weight;
  entry.ns += (bounded / level_ - entry.ns) * weight;
  ++entry.count;
  entry.last = runs_;
  if (runs_ % kFitEvery == 0) Fit();
}

uint32_t CostTable::largest() const {
  for (size_t i = entries_.size(); i-- > 0;) {
    if (fresh(entries_[i])) return static_cast<uint32_t>(std::ceil(entries_[i].rows));
  }
  return 0;
}

void CostTable::Fit() {
  double w = 0, n = 0, t = 0;
  for (const Entry& entry : entries_) {
    if (!fresh(entry)) continue;
    const double weight = std::min(entry.count, kMostRuns);
    w += weight;
    n += weight * entry.rows;
    t += weight * entry.ns;
  }
  n /= w;
  t /= w;
  double nn = 0, nt = 0;
  for (const Entry& entry : entries_) {
    if (!fresh(entry)) continue;
    const double weight = std::min(entry.count, kMostRuns);
    nn += weight * (entry.rows - n) * (entry.rows - n);
    nt += weight * (entry.rows - n) * (entry.ns - t);
  }
  // One size alone is taken to cost in proportion; more rows never cost less, nor less than nothing.
  per_row_ = nn > 0 ? std::clamp(nt / nn, 0.0, t / n) : t / n;
  base_ = t - per_row_ * n;
}

// Few runs say little: until there are more, the line says most.
double CostTable::AtLevelOne(uint32_t rows) const {
  const double line = base_ + per_row_ * rows;
  const Entry& entry = entries_[IndexOf(rows)];
  if (!fresh(entry)) return line;
  const double own = entry.ns * line / (base_ + per_row_ * entry.rows);
  const double weight = std::min(entry.count, kMostRuns);
  return (own * weight + line * kLineRuns) / (weight + kLineRuns);
}

double CostTable::Mean(uint32_t rows) const { return runs_ && rows ? level_ * AtLevelOne(rows) : 0; }

double CostTable::Usual(uint32_t rows) const {
  return runs_ && rows ? usual_level_ * AtLevelOne(rows) : 0;
}

void LatencyWindow::Add(int64_t ns) {
  const double doublings = std::log2(static_cast<double>(std::max<int64_t>(ns, 1)));
  const auto index = static_cast<size_t>(doublings * kPerDoubling);
  ++counts_[std::min(index, counts_.size() - 1)];
  ++count_;
}

int64_t LatencyWindow::P99() const {
  float above = count_ / 100;  // so many may be above
  for (size_t i = counts_.size(); i-- > 0;) {
    if (counts_[i] > above) return static_cast<int64_t>(std::exp2((i + 0.5) / kPerDoubling));
    above -= counts_[i];
  }
  return 0;
}

void LatencyWindow::Fade(double part) {
  count_ = 0;
  for (float& count : counts_) {
    count = count < 0.01f ? 0 : count * static_cast<float>(part);
    count_ += count;
  }
}

void BatchPolicy::Set(const BatchOptions& options, int lanes) {
  options_ = options;
  lanes_ = lanes < 1 ? 1 : lanes;
  if (options_.max_batch < 1) options_.max_batch = 1;
  settled_delay_ns_ = trial_epoch_ = 0;
  delay_ns_ = options_.target_p99_ns ? 0 : options_.max_delay_ns;
  ChooseCap();
}

void BatchPolicy::ChooseCap() {
  if (!options_.target_p99_ns) {
    cap_ = options_.max_batch;
    queue_rows_ = UINT64_MAX;
    return;
  }
  if (!cost_.known()) {
    cap_ = 1;
    queue_rows_ = UINT64_MAX;
    return;
  }
  const double limit = limit_ns();
  uint32_t best = 1;
  double best_rate = 1 / cost_.Usual(1);
  const uint32_t most = std::min(options_.max_batch, cost_.largest() * 2);
  for (uint32_t rows = 2; rows <= most; rows += rows < 128 ? 1 : rows / 64) {
    // Whoever comes when a run has just begun waits for it, and then for its own: seldom are both long.
    if (2 * cost_.Usual(rows) > limit) break;
    const double rate = rows / cost_.Usual(rows);
    if (rate > best_rate * kWorthMore) {
      best = rows;
      best_rate = rate;
    }
  }
  // The best is at the edge of what was tried: go a step further.
  if (best > cost_.largest() / 2 && best < options_.max_batch) {
    const uint32_t further = std::min({best + std::max(1u, best / 2), options_.max_batch, most});
    if (2 * cost_.Usual(further) <= limit) best = std::max(best, further);
  }
  cap_ = best;
  // Behind a run that has just begun, and each other.
  const double ahead = limit / cost_.Usual(best) - 1;
  queue_rows_ = static_cast<uint64_t>(best * lanes_ * std::max(1.0, ahead));
}

uint32_t BatchPolicy::Choose(uint32_t ready, int64_t oldest_ns, int64_t now, int64_t* until) const {
  if (ready >= cap_) return cap_;
  // The largest preferred size that is there goes at once.
  uint32_t preferred = 0;
  for (const uint32_t size : options_.preferred) {
    if (size <= ready && size <= cap_) preferred = size;
  }
  if (preferred) return preferred;
  if (delay_ns_ > 0 && now - oldest_ns < delay_ns_) {
    *until = oldest_ns + delay_ns_;
    return 0;
  }
  return ready;
}

int64_t BatchPolicy::Predict(uint32_t rows, uint64_t rows_ahead, int64_t lane_free_ns) const {
  if (!cost_.known()) return 0;
  const uint64_t batches_ahead = rows_ahead / cap_;
  // A request of more rows than a batch now has runs in one all the same.
  const uint32_t own =
      rows >= cap_ ? rows : static_cast<uint32_t>(std::min<uint64_t>(cap_, rows_ahead % cap_ + rows));
  const double wait = static_cast<double>(batches_ahead) * cost_.Mean(cap_) / lanes_;
  const int64_t delay = rows_ahead + rows < cap_ ? delay_ns_ : 0;
  return lane_free_ns + delay + static_cast<int64_t>(wait + cost_.Mean(own));
}

void BatchPolicy::OnRun(uint32_t rows, int64_t ns, int64_t now) {
  cost_.Add(rows, ns);
  if (!options_.target_p99_ns) return;
  epoch_.rows += rows;
  epoch_.busy_ns += ns;
  LearnDelay(now);
  if (++runs_ % 16 == 0 || runs_ < 16) ChooseCap();
}

void BatchPolicy::OnDone(int64_t ns, int64_t now) {
  if (!options_.target_p99_ns) return;
  window_.Add(ns);
  if (window_start_ns_ == 0) window_start_ns_ = now;
  if (static_cast<double>(ns) * kHeadroom > static_cast<double>(options_.target_p99_ns)) ++late_;
  if (++window_requests_ < kWindowRequests || now - window_start_ns_ < kWindowNs) return;
  last_p99_ns_ = window_.P99();
  const double part = static_cast<double>(late_) / window_requests_;
  const double step = std::max(-kMostDown, kGain * (kLatePart - part));
  if (step < 0 || refused_) margin_ = std::clamp(margin_ * (1 + step), kLeastMargin, kMostMargin);
  late_ = 0;
  window_requests_ = 0;
  window_.Fade(kFade);
  window_start_ns_ = now;
  refused_ = false;
  ChooseCap();
}

// While lanes are busy nearly all the time and there is room below the target, a short wait may give
// fuller batches. Whether it does is tried: epochs with the trial and without, in turns.
void BatchPolicy::LearnDelay(int64_t now) {
  if (epoch_.start_ns == 0) epoch_ = {now, 0, 0};
  const int64_t elapsed = now - epoch_.start_ns;
  if (elapsed < kEpochNs) return;
  const double rate = static_cast<double>(epoch_.rows) / static_cast<double>(elapsed);
  const double busy = static_cast<double>(epoch_.busy_ns) / static_cast<double>(elapsed * lanes_);
  epoch_ = {now, 0, 0};
  const double limit = limit_ns();
  if (trial_epoch_ == 0) {
    if (rest_epochs_ > 0) {
      --rest_epochs_;
      return;
    }
    trial_delay_ns_ = settled_delay_ns_ ? settled_delay_ns_ * 2 : kFirstDelayNs;
    const bool room = 2 * cost_.Mean(cap_) + static_cast<double>(trial_delay_ns_) < limit;
    if (busy < 0.7 || !room) {
      // Waiting gains nothing here.
      settled_delay_ns_ /= 2;
      if (settled_delay_ns_ < kFirstDelayNs) settled_delay_ns_ = 0;
      delay_ns_ = settled_delay_ns_;
      rest_epochs_ = kRestEpochs / 4;
      return;
    }
    gains_[0] = gains_[1] = 0;
    trial_epoch_ = 1;
    delay_ns_ = trial_delay_ns_;
    return;
  }
  gains_[trial_epoch_ % 2] += rate;
  if (trial_epoch_ < kTrialEpochs) {
    ++trial_epoch_;
    delay_ns_ = trial_epoch_ % 2 ? trial_delay_ns_ : settled_delay_ns_;
    return;
  }
  if (gains_[1] > gains_[0] * kWorthDelay) settled_delay_ns_ = trial_delay_ns_;
  delay_ns_ = settled_delay_ns_;
  trial_epoch_ = 0;
  rest_epochs_ = kRestEpochs;
}

}  // namespace tercel
