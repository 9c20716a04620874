#include "batch_policy.h"

#include <algorithm>
#include <cmath>

namespace tercel {

namespace {

// A larger batch must gain so much throughput to be worth its latency.
constexpr double kWorthMore = 1.02;
// The margin moves between these, in windows of at least so many requests and so much time.
constexpr double kLeastMargin = 0.25;
constexpr double kMostMargin = 1.25;
// How far below the target the windows are kept, so that most of them are inside.
constexpr double kHeadroom = 1.03;
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
  const auto sample = static_cast<double>(ns);
  ++runs_;
  if (!fresh(entry)) {
    entry = {static_cast<double>(rows), sample, sample / 8, 1, runs_};
  } else {
    // Quick at first. A stall of the machine counts, but not for all of its length: it says nothing
    // about the size.
    const double weight = 1.0 / std::min(entry.count + 1, 16u);
    const double bounded = entry.count < 4 ? sample : std::min(sample, entry.mean * 1.5);
    entry.rows += (rows - entry.rows) * weight;
    entry.deviation += (std::abs(bounded - entry.mean) - entry.deviation) * weight;
    entry.mean += (bounded - entry.mean) * weight;
    ++entry.count;
    entry.last = runs_;
  }
}

uint32_t CostTable::largest() const {
  for (size_t i = entries_.size(); i-- > 0;) {
    if (fresh(entries_[i])) return static_cast<uint32_t>(std::ceil(entries_[i].rows));
  }
  return 0;
}

double CostTable::Interpolate(uint32_t rows, double Entry::*field) const {
  const Entry* below = nullptr;
  const Entry* before = nullptr;  // the one below `below`
  const Entry* above = nullptr;
  for (const Entry& entry : entries_) {
    if (!fresh(entry)) continue;
    if (entry.rows <= rows) {
      before = below;
      below = &entry;
    } else {
      above = &entry;
      break;
    }
  }
  if (!below && !above) return 0;
  // Fewer rows than were ever seen: at most what the fewest cost.
  if (!below) return above->*field;
  if (below->rows == rows) return below->*field;
  if (above) {
    const double part = (rows - below->rows) / (above->rows - below->rows);
    return below->*field + (above->*field - below->*field) * part;
  }
  // Beyond what was seen: along the last two, or in proportion.
  if (!before) return below->*field * rows / below->rows;
  const double slope = std::max(0.0, (below->*field - before->*field) / (below->rows - before->rows));
  return below->*field + slope * (rows - below->rows);
}

double CostTable::Mean(uint32_t rows) const { return Interpolate(rows, &Entry::mean); }

double CostTable::Upper(uint32_t rows) const {
  return Mean(rows) + 3 * Interpolate(rows, &Entry::deviation);
}

void LatencyWindow::Add(int64_t ns) {
  const double doublings = std::log2(static_cast<double>(std::max<int64_t>(ns, 1)));
  const auto index = static_cast<size_t>(doublings * kPerDoubling);
  ++counts_[std::min(index, counts_.size() - 1)];
  ++count_;
}

int64_t LatencyWindow::P99() const {
  uint32_t above = count_ / 100;  // so many may be above
  for (size_t i = counts_.size(); i-- > 0;) {
    if (counts_[i] > above) return static_cast<int64_t>(std::exp2((i + 0.5) / kPerDoubling));
    above -= counts_[i];
  }
  return 0;
}

void LatencyWindow::Clear() {
  counts_.fill(0);
  count_ = 0;
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
    return;
  }
  if (!cost_.known()) {
    cap_ = 1;
    return;
  }
  const auto limit = static_cast<double>(limit_ns());
  uint32_t best = 1;
  double best_rate = 1 / cost_.Mean(1);
  const uint32_t most = std::min(options_.max_batch, cost_.largest() * 2);
  for (uint32_t rows = 2; rows <= most; rows += rows < 16 ? 1 : rows / 8) {
    // Whoever comes when a run has just begun waits for it, and then for its own: seldom are both long.
    if (cost_.Mean(rows) + cost_.Upper(rows) > limit) break;
    const double rate = rows / cost_.Mean(rows);
    if (rate > best_rate * kWorthMore) {
      best = rows;
      best_rate = rate;
    }
  }
  // The best is at the edge of what was tried: go a step further.
  if (best > cost_.largest() / 2 && best < options_.max_batch) {
    const uint32_t further = std::min({best + std::max(1u, best / 2), options_.max_batch, most});
    if (cost_.Mean(further) + cost_.Upper(further) <= limit) best = std::max(best, further);
  }
  cap_ = best;
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

int64_t BatchPolicy::Predict(uint32_t rows, uint64_t rows_ahead, int64_t lane_free_ns,
                             bool upper) const {
  if (!cost_.known()) return 0;
  const uint64_t batches_ahead = rows_ahead / cap_;
  // A request of more rows than a batch now has runs in one all the same.
  const uint32_t own =
      rows >= cap_ ? rows : static_cast<uint32_t>(std::min<uint64_t>(cap_, rows_ahead % cap_ + rows));
  const double wait = static_cast<double>(batches_ahead) * cost_.Mean(cap_) / lanes_;
  const int64_t delay = rows_ahead + rows < cap_ ? delay_ns_ : 0;
  const double run = upper ? cost_.Upper(own) : cost_.Mean(own);
  return lane_free_ns + delay + static_cast<int64_t>(wait + run);
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
  if (window_.count() < kWindowRequests || now - window_start_ns_ < kWindowNs) return;
  last_p99_ns_ = window_.P99();
  const double ratio = static_cast<double>(options_.target_p99_ns) / static_cast<double>(last_p99_ns_);
  if (ratio < kHeadroom) {
    margin_ = std::max(kLeastMargin, margin_ * std::clamp(ratio / kHeadroom, 0.7, 0.98));
  } else if (ratio > kHeadroom * 1.05) {
    // Room is left, and it is we who hold throughput down: by refusing, or by small batches.
    margin_ = std::min(kMostMargin, margin_ * 1.02);
  }
  window_.Clear();
  window_start_ns_ = now;
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
  const auto limit = static_cast<double>(limit_ns());
  if (trial_epoch_ == 0) {
    if (rest_epochs_ > 0) {
      --rest_epochs_;
      return;
    }
    trial_delay_ns_ = settled_delay_ns_ ? settled_delay_ns_ * 2 : kFirstDelayNs;
    const bool room = 2 * cost_.Upper(cap_) + static_cast<double>(trial_delay_ns_) < limit;
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
