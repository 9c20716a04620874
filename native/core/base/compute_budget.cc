#include "base/compute_budget.h"

#include <algorithm>

#include "base/adaptive_lock.h"

namespace tercel {

int ComputeBudget::NeedOf(const ComputeClaim* claim) const {
  return std::max(1, std::min(claim->threads_, limit_));
}

bool ComputeBudget::HasRoomFor(const ComputeClaim* claim) const {
  return busy_.load(std::memory_order_relaxed) + NeedOf(claim) <= limit_;
}

int ComputeBudget::Grant(ComputeClaim* claim) {
  const int threads = NeedOf(claim);
  busy_.fetch_add(threads, std::memory_order_relaxed);
  // A claim that was idle does not save up what it did not use.
  claim->virtual_ns_ = std::max(claim->virtual_ns_, virtual_ns_);
  virtual_ns_ = claim->virtual_ns_;
  return threads;
}

int ComputeBudget::TryAcquire(ComputeClaim* claim) {
  const auto lock = LockAdaptive(mutex_);
  if (claim->abandoned_ || !waiters_.empty() || !HasRoomFor(claim)) return 0;
  return Grant(claim);
}

int ComputeBudget::Acquire(ComputeClaim* claim) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (claim->abandoned_) return 0;
  Waiter waiter;
  waiter.claim = claim;
  waiters_.push_back(&waiter);
  GrantWaiters();
  waiter.changed.wait(lock, [&] { return waiter.granted || claim->abandoned_; });
  if (waiter.granted) return waiter.granted;
  waiters_.erase(std::find(waiters_.begin(), waiters_.end(), &waiter));
  GrantWaiters();
  return 0;
}

void ComputeBudget::GrantWaiters() {
  while (!waiters_.empty()) {
    auto next = std::min_element(waiters_.begin(), waiters_.end(), [](Waiter* a, Waiter* b) {
      return a->claim->virtual_ns_ < b->claim->virtual_ns_;
    });
    Waiter* waiter = *next;
    // The one whose turn it is keeps it until there is enough: a wide run must not starve.
    if (!HasRoomFor(waiter->claim)) return;
    waiter->granted = Grant(waiter->claim);
    waiters_.erase(next);
    waiter->changed.notify_one();
  }
}

void ComputeBudget::Release(ComputeClaim* claim, int threads, int64_t busy_ns) {
  const auto lock = LockAdaptive(mutex_);
  busy_.fetch_sub(threads, std::memory_order_relaxed);
  claim->virtual_ns_ += static_cast<double>(busy_ns) * threads / claim->weight_;
  if (!waiters_.empty()) GrantWaiters();
}

void ComputeBudget::Abandon(ComputeClaim* claim) {
  std::lock_guard<std::mutex> lock(mutex_);
  claim->abandoned_ = true;
  for (Waiter* waiter : waiters_) {
    if (waiter->claim == claim) waiter->changed.notify_one();
  }
}

void ComputeBudget::SetLimit(int threads) {
  std::lock_guard<std::mutex> lock(mutex_);
  limit_ = threads;
  GrantWaiters();
}

void ComputeBudget::Configure(ComputeClaim* claim, int threads, double weight) {
  std::lock_guard<std::mutex> lock(mutex_);
  claim->threads_ = threads;
  claim->weight_ = weight;
}

int ComputeBudget::limit() {
  std::lock_guard<std::mutex> lock(mutex_);
  return limit_;
}

}  // namespace tercel
