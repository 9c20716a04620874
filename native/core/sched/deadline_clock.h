// DeadlineClock: one native thread that ends what has run out of time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

namespace tercel {

class Job;

// The thread starts with the first deadline and lives as long as the clock. Thread-safe.
// Lock order: the clock's mutex before a scheduler's.
class DeadlineClock {
 public:
  DeadlineClock() = default;
  ~DeadlineClock();

  // Starts the thread if it does not run yet; false when the system has none to give.
  bool Start();
  // REQUIRES: Start succeeded; the job has a deadline and its scheduler outlives its entry here.
  void Add(Job* job);
  // Once this returns, the clock does not touch the job. Unknown jobs are ignored.
  void Remove(Job* job);

 private:
  void Loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<std::pair<int64_t, Job*>> jobs_;  // protected by mutex_
  std::thread thread_;                       // protected by mutex_
  bool stopping_ = false;                    // protected by mutex_
};

}  // namespace tercel
