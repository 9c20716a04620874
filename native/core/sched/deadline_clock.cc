#include "sched/deadline_clock.h"

#include <chrono>
#include <system_error>

#include "base/clock.h"
#include "sched/job.h"
#include "sched/scheduler.h"

namespace tercel {

DeadlineClock::~DeadlineClock() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

bool DeadlineClock::Start() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (thread_.joinable()) return true;
  try {
    thread_ = std::thread([this] { Loop(); });
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

void DeadlineClock::Add(Job* job) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto entry = jobs_.insert({job->deadline_ns, job}).first;
  if (entry == jobs_.begin()) changed_.notify_one();
}

void DeadlineClock::Remove(Job* job) {
  std::lock_guard<std::mutex> lock(mutex_);
  jobs_.erase({job->deadline_ns, job});
}

void DeadlineClock::Loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    if (jobs_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const auto [deadline, job] = *jobs_.begin();
    const int64_t now = NowNs();
    if (deadline > now) {
      changed_.wait_for(lock, std::chrono::nanoseconds(deadline - now));
      continue;
    }
    jobs_.erase(jobs_.begin());
    // Alive: it cannot complete before its Remove, which waits for the mutex.
    job->scheduler_->Expire(job);
  }
}

}  // namespace tercel
