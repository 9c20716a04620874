#include "sched/batch_former.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"

namespace tercel {

namespace {

// Jobs of other buckets that the search for neighbours passes over.
constexpr size_t kMaxOthers = 256;
// Buckets that may wait for their delay at once, while others are looked at.
constexpr size_t kMaxWaiting = 16;
// A batch takes no more JSON than this and its last request: while the lane reads, the JS thread shall
// have answers to send (mlp, 64 clients: 1.05x of all at once).
constexpr size_t kMaxTextBytes = 256 * 1024;

}  // namespace

Job* BatchFormer::Front(uint32_t* rows, int64_t* until) {
  *until = 0;
  if (queue_->ready() == 0) return nullptr;
  const Bucket* waiting[kMaxWaiting];
  size_t count = 0;
  for (int priority = 0; priority < kPriorities; ++priority) {
    for (Job* job = queue_->first(priority); job; job = job->next_) {
      if (!job->ready_) continue;
      const Bucket** end = waiting + count;
      if (job->block && std::find(waiting, end, job->bucket.get()) != end) continue;
      int64_t job_until = 0;
      *rows = RowsNow(job, &job_until);
      if (*rows > 0) return job;
      if (*until == 0 || job_until < *until) *until = job_until;
      if (count == kMaxWaiting) return nullptr;
      waiting[count++] = job->bucket.get();
    }
  }
  return nullptr;
}

uint32_t BatchFormer::RowsNow(const Job* first, int64_t* until) const {
  if (!first->block) {
    if (first->sources.empty()) return std::max(1u, first->rows);
    return std::min({first->rows - first->rows_taken_, policy_.cap(), first->bucket->capacity()});
  }
  const uint32_t ready = first->bucket->ready_rows;
  if (policy_.delay_ns() == 0 && policy_.options().preferred.empty()) {
    return std::min(ready, policy_.cap());
  }
  return policy_.Choose(ready, first->submitted_ns, NowNs(), until);
}

void BatchFormer::Take(Lane* lane, Job* first, uint32_t rows) {
  lane->parts.clear();
  lane->bucket = first->bucket;
  if (first->block) {
    lane->block = first->block;
    uint32_t next_row = first->first_row;
    size_t others = 0;
    size_t text_bytes = 0;
    // Neighbours only: what lies side by side runs where it lies.
    for (Job* job = first; job && lane->rows < rows && others < kMaxOthers;) {
      Job* const next = job->next_;
      if (job->block.get() != lane->block.get()) {
        ++others;
      } else {
        if (!job->ready_) break;
        // What the lane reads while others bring more: not all of it at once.
        if (text_bytes > kMaxTextBytes) break;
        // A gap is what a cancelled request left.
        if (job->first_row != next_row || (job != first && lane->rows + job->rows > rows)) break;
        queue_->Remove(job);
        job->state_ = Job::State::kRunning;
        job->lane_ = lane;
        const size_t part = lane->parts.size();
        lane->parts.push_back({job, job->first_row, job->rows});
        if (!job->unread.empty()) {
          // Once the job is completed, by whomever, it is its owner's again.
          if (lane->unread.size() <= part) lane->unread.resize(part + 1);
          text_bytes += job->unread.text.size();
          std::swap(lane->unread[part], job->unread);
          lane->any_unread = true;
        }
        lane->rows += job->rows;
        next_row += job->rows;
      }
      job = next;
    }
    lane->bucket->Close(lane->block.get());
    return;
  }
  const bool whole = rows >= first->rows;
  const uint32_t from = first->rows_taken_;
  lane->rows = std::max(1u, whole ? first->rows : std::min(rows, first->rows - from));
  lane->parts.push_back({first, from, lane->rows});
  ++first->parts_running_;
  if (whole || from + lane->rows == first->rows) {
    queue_->Remove(first);
    first->rows_taken_ = first->rows;
    first->state_ = Job::State::kRunning;
    return;
  }
  // The rest goes after the others of its priority, so that a large request does not hold them up.
  queue_->Remove(first);
  first->rows_taken_ += lane->rows;
  queue_->Push(first);
}

}  // namespace tercel
