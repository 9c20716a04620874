// A load generator for HTTP/1.1 servers: one thread, many connections, each with one request at a time.
//
// Closed loop: a connection sends its next request when it has an answer. Open loop: requests are due
// at times of their own, whatever the server does; one that finds no connection free waits for one, and
// its latency counts from when it was due. So a server that stalls is charged with every request that
// it made wait, and not only with those that it had already (Gil Tene's "coordinated omission").
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/histogram.h"
#include "base/status.h"

namespace tercel {

struct HttpLoadOptions {
  std::string host;
  uint16_t port = 0;
  // Whole requests, head and body, sent in turns.
  std::vector<std::string> requests;
  uint32_t connections = 1;
  double rate = 0;       // requests a second over all connections; 0 is a closed loop
  bool poisson = false;  // else they are due at equal distances
  uint64_t seed = 1;     // of the distances
  int64_t duration_ns = 0;
  int64_t drain_ns = 0;  // how long answers are waited for at the end
  // Before a request is due the generator looks instead of sleeping, for so long: a wake comes 25 to 60
  // us late.
  int64_t spin_ns = 60'000;
};

// Shared with the thread that waits; counted with relaxed atomics.
struct HttpLoadProgress {
  int32_t completed = 0;
  int32_t failed = 0;
  int32_t stop = 0;  // set by whoever wants it to end now
};

struct HttpLoadResult {
  // By HistogramIndex, of answers with a 2xx status: from when a request was due (in a closed loop:
  // sent) to the end of its answer, and from when it was sent.
  std::vector<uint32_t> latency = std::vector<uint32_t>(kHistogramBuckets);
  std::vector<uint32_t> service = std::vector<uint32_t>(kHistogramBuckets);
  int64_t max_ns = 0;
  uint64_t completed = 0;  // answers with a 2xx status
  // Of them a second: in a closed loop each connection's by its own last answer, added up, so that what
  // is on its way when the time is over is not lost; in an open loop those within the duration.
  double per_second = 0;
  std::map<int, uint64_t> other_statuses;
  uint64_t broken = 0;      // connections that ended while a request was on its way
  uint64_t unanswered = 0;  // at the end
  uint64_t unsent = 0;      // at the end: due, but no connection was free
  uint64_t bytes_in = 0;
  uint64_t bytes_out = 0;
  int64_t start_ns = 0;  // by the monotonic clock
  int64_t elapsed_ns = 0;
  int64_t cpu_ns = 0;       // of the generator's thread
  int64_t late_ns = 0;      // the most that a request was sent late although a connection was free
  bool gone = false;        // nobody listens any more: ended early
  std::string first_error;  // the body of the first answer with another status, at most 1 KB
};

// Runs the load on the calling thread. Model when the server cannot be reached at all.
[[nodiscard]] Status RunHttpLoad(const HttpLoadOptions& options, HttpLoadProgress* progress,
                                 HttpLoadResult* result);

}  // namespace tercel
