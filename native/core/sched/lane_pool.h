// LanePool: the lanes of a scheduler, which start when there is work for them and park when there is
// none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <vector>

#include "sched/lane.h"

namespace tercel {

// REQUIRES of all but Join: the scheduler's mutex is held.
class LanePool {
 public:
  // `loop` is what a lane's thread does; it ends when the scheduler does.
  explicit LanePool(std::function<void(Lane*)> loop) : loop_(std::move(loop)) {}

  // Lanes at most. Those that run already stay.
  void set_limit(int lanes) { limit_ = lanes; }
  int limit() const { return limit_; }
  // The number of the last chore: a lane that starts has none to do.
  void set_chore(uint64_t number) { chore_ = number; }

  // False when the system has no thread to give.
  bool Start();
  // Wakes a parked lane, or starts one.
  void WakeOne();
  void WakeAll();
  // Waits until somebody wakes the lane. `lock` is the scheduler's.
  void Park(Lane* lane, std::unique_lock<std::mutex>* lock);
  // Ends what runs as soon as the graphs notice.
  void TerminateAll();
  // REQUIRES: their loops end; not on a lane.
  void Join();

  std::list<Lane>& lanes() { return lanes_; }
  size_t size() const { return lanes_.size(); }
  bool empty() const { return lanes_.empty(); }

 private:
  const std::function<void(Lane*)> loop_;
  int limit_ = 1;
  uint64_t chore_ = 0;
  std::list<Lane> lanes_;
  std::vector<Lane*> parked_;  // without work; the last parked last
};

}  // namespace tercel
