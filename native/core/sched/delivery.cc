#include "sched/delivery.h"

#include <algorithm>

namespace tercel {

void Delivery::Expect(const Ref<Job>& job, bool in_order) {
  in_flight_.fetch_add(1, std::memory_order_relaxed);
  if (!in_order) return;
  std::lock_guard<std::mutex> lock(mutex_);
  turns_.push_back({job, false});
}

void Delivery::Complete(Ref<Job> job) {
  if (job->deadline_ns) clock_->Remove(job.get());
  Deliver(std::move(job));
}

void Delivery::Deliver(Ref<Job> job) {
  if (!ordered_.load(std::memory_order_relaxed)) {
    Post(std::move(job));
    return;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  auto turn = std::find_if(turns_.begin(), turns_.end(),
                           [&](const Turn& t) { return t.job.get() == job.get(); });
  if (turn == turns_.end()) {  // it came before the order was asked for
    Post(std::move(job));
    return;
  }
  turn->done = true;
  job.reset();  // the last reference must not be dropped here: the job may hold the model
  while (!turns_.empty() && turns_.front().done) {
    Ref<Job> next = std::move(turns_.front().job);
    turns_.pop_front();
    Post(std::move(next));
  }
}

void Delivery::Post(Ref<Job> job) {
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  const Ref<CompletionSink> sink = job->sink;  // outlives the job, which may go before Post returns
  sink->Post(std::move(job));
}

// A batch's jobs mostly go to one sink: one lock and at most one wake for all of them.
void Delivery::CompleteAll(std::vector<Ref<Job>>* jobs) {
  if (ordered_.load(std::memory_order_relaxed)) {
    for (Ref<Job>& job : *jobs) Complete(std::move(job));
    jobs->clear();
    return;
  }
  for (const Ref<Job>& job : *jobs) {
    if (job->deadline_ns) clock_->Remove(job.get());
  }
  in_flight_.fetch_sub(jobs->size(), std::memory_order_relaxed);
  std::vector<Ref<Completion>> list;
  list.reserve(jobs->size());
  for (size_t i = 0; i < jobs->size();) {
    const Ref<CompletionSink> sink = (*jobs)[i]->sink;
    list.clear();
    while (i < jobs->size() && (*jobs)[i]->sink.get() == sink.get())
      list.push_back(std::move((*jobs)[i++]));
    sink->PostAll(list.data(), list.size());
  }
  jobs->clear();
}

}  // namespace tercel
