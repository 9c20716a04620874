#include "sched/lane_pool.h"

#include <system_error>

namespace tercel {

namespace {

void Unpark(Lane* lane) {
  lane->parked = false;
  lane->wake.notify_one();
}

}  // namespace

bool LanePool::Start() {
  OrtRunOptions* run_options = nullptr;
  if (OrtStatus* status = ort.CreateRunOptions(&run_options)) {
    ort.ReleaseStatus(status);
    return false;
  }
  lanes_.emplace_back();
  Lane* lane = &lanes_.back();
  lane->run_options.reset(run_options);
  lane->chore = chore_;
  try {
    lane->thread = std::thread(loop_, lane);
    return true;
  } catch (const std::system_error&) {
    lanes_.pop_back();
    return false;
  }
}

// The lane that parked last: its stack and its processor's caches are warm, and the others' processors
// are left to others. Woken in turns, two lanes push whatever else computes from one processor to the
// other.
void LanePool::WakeOne() {
  if (!parked_.empty()) {
    Unpark(parked_.back());
    parked_.pop_back();
    return;
  }
  // Where there is no thread to be had now, the lanes that exist do the work.
  if (static_cast<int>(lanes_.size()) < limit_) (void)Start();
}

void LanePool::WakeAll() {
  for (Lane* lane : parked_) Unpark(lane);
  parked_.clear();
}

void LanePool::Park(Lane* lane, std::unique_lock<std::mutex>* lock) {
  parked_.push_back(lane);
  lane->parked = true;
  lane->wake.wait(*lock, [lane] { return !lane->parked; });
}

void LanePool::TerminateAll() {
  for (Lane& lane : lanes_) {
    (void)ToStatus(ort.RunOptionsSetTerminate(lane.run_options.get()), Code::kRun);
  }
}

void LanePool::Join() {
  for (Lane& lane : lanes_) {
    if (lane.thread.joinable()) lane.thread.join();
  }
}

}  // namespace tercel
