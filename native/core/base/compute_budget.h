// ComputeBudget: how many compute threads run at once over all models, and who is next.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

namespace tercel {

// One model's claim. Models that wait get the budget in proportion to their weights: each claim has a
// virtual time, which a run moves on by threads x nanoseconds / weight, and the one furthest behind
// goes first (start-time fair queueing, Goyal et al. 1996). Fields are protected by the budget's mutex.
class ComputeClaim {
 public:
  ComputeClaim(int threads, double weight) : threads_(threads), weight_(weight) {}

 private:
  friend class ComputeBudget;
  int threads_;  // that one run keeps busy
  double weight_;
  double virtual_ns_ = 0;
  bool abandoned_ = false;
};

// Thread-safe.
class ComputeBudget {
 public:
  // `threads` runnable at once.
  explicit ComputeBudget(int threads) : limit_(threads) {}

  // Waits until a run of the claim may start; the threads granted, or 0 once the claim was abandoned.
  // Each grant wants a Release. A run that needs more than the whole budget gets the whole.
  int Acquire(ComputeClaim* claim);
  // The same without waiting: 0 when others are in front or the budget is spent.
  int TryAcquire(ComputeClaim* claim);
  // `threads` as granted; `busy_ns`: how long the run took.
  void Release(ComputeClaim* claim, int threads, int64_t busy_ns);
  // Ends the claim's waits, now and later.
  void Abandon(ComputeClaim* claim);

  void SetLimit(int threads);
  void Configure(ComputeClaim* claim, int threads, double weight);
  int limit();
  // How many are granted.
  const std::atomic<int>& busy() const { return busy_; }

 private:
  struct Waiter {
    ComputeClaim* claim;
    std::condition_variable changed;
    int granted = 0;
  };

  // REQUIRES of all: mutex_ held
  int NeedOf(const ComputeClaim* claim) const;
  bool HasRoomFor(const ComputeClaim* claim) const;
  int Grant(ComputeClaim* claim);
  void GrantWaiters();

  std::mutex mutex_;
  // Protected by mutex_.
  int limit_;
  std::atomic<int> busy_{0};  // read without; above the limit after that was lowered
  double virtual_ns_ = 0;     // of the claim that started last
  std::vector<Waiter*> waiters_;
};

}  // namespace tercel
