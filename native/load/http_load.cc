#include "load/http_load.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string_view>

#include "base/clock.h"
#include "load/http_answer.h"
#include "load/poller.h"

namespace tercel {

namespace {

constexpr size_t kReadBytes = 256 * 1024;
constexpr size_t kMostErrorBytes = 1024;
// A connection that could not be made is tried again after this, and so often in a row in all.
constexpr int64_t kRetryNs = 20'000'000;
constexpr int kMostRefusals = 10;
// A stop is noticed this soon.
constexpr int64_t kLongestWaitNs = 50'000'000;

int64_t ThreadCpuNs() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

struct Connection {
  int fd = -1;
  bool connected = false;
  bool busy = false;     // a request is on its way
  bool writing = false;  // not all of it is with the system yet
  const std::string* request = nullptr;
  size_t written = 0;
  int64_t due_ns = 0;
  int64_t sent_ns = 0;
  int64_t retry_ns = 0;     // no socket until then
  uint64_t answered = 0;    // with a 2xx status
  int64_t answered_ns = 0;  // the last of them
  HttpAnswer answer;
};

class Generator {
 public:
  Generator(const HttpLoadOptions& options, HttpLoadProgress* progress, HttpLoadResult* result)
      : options_(options),
        progress_(progress),
        result_(result),
        connections_(options.connections),
        random_(options.seed),
        buffer_(new char[kReadBytes]) {}

  ~Generator() {
    for (uint32_t tag = 0; tag < connections_.size(); ++tag) Close(tag);
  }

  Status Run(const addrinfo* address) {
    address_ = address;
    if (!poller_.ok()) return Status::Overload("the system has no more file descriptors");
    const int64_t cpu = ThreadCpuNs();
    Status status = OpenAll();
    if (!status.ok()) return status;
    start_ns_ = NowNs();
    end_ns_ = start_ns_ + options_.duration_ns;
    result_->start_ns = start_ns_;
    next_due_ns_ = start_ns_;
    if (options_.rate > 0) Advance();
    while (Step()) {
    }
    result_->elapsed_ns = std::min(NowNs(), end_ns_) - start_ns_;
    result_->cpu_ns = ThreadCpuNs() - cpu;
    for (const Connection& connection : connections_) {
      result_->unanswered += connection.busy;
      if (open_loop() || connection.answered == 0) continue;
      result_->per_second += static_cast<double>(connection.answered) * 1e9 /
                             static_cast<double>(connection.answered_ns - start_ns_);
    }
    if (open_loop() && result_->elapsed_ns > 0) {
      result_->per_second =
          static_cast<double>(in_time_) * 1e9 / static_cast<double>(result_->elapsed_ns);
    }
    result_->unsent += waiting_.size();
    return {};
  }

 private:
  bool open_loop() const { return options_.rate > 0; }

  // Distances between requests: 1/rate, or exponential with that mean (a Poisson process).
  void Advance() {
    const double mean = 1e9 / options_.rate;
    double gap = mean;
    if (options_.poisson) gap = -std::log(1.0 - uniform_(random_)) * mean;
    due_exact_ += gap;
    next_due_ns_ = start_ns_ + static_cast<int64_t>(due_exact_);
  }

  // All connections before the clock starts: making them is not what is measured.
  Status OpenAll() {
    for (uint32_t tag = 0; tag < connections_.size(); ++tag) {
      if (!Open(tag, NowNs())) return CannotConnect();
    }
    const int64_t until = NowNs() + 5'000'000'000;
    while (connected_ < connections_.size()) {
      if (NowNs() > until || Stopped()) {
        errno = ETIMEDOUT;
        return CannotConnect();
      }
      for (const Poller::Event& event : poller_.Wait(kLongestWaitNs)) {
        Connection& connection = connections_[event.tag];
        if (!connection.connected && !FinishConnect(event.tag)) return CannotConnect();
      }
    }
    return {};
  }

  Status CannotConnect() const {
    return Status::Model("cannot connect to " + options_.host + ":" + std::to_string(options_.port) +
                         ": " + std::strerror(errno));
  }

  bool Stopped() const { return __atomic_load_n(&progress_->stop, __ATOMIC_RELAXED) != 0; }

  // False when it is over.
  bool Step() {
    int64_t now = NowNs();
    if (Stopped() || result_->gone) return false;
    if (now >= end_ns_ + options_.drain_ns) return false;
    // What was due before the end is sent, however late the generator itself is.
    const bool all_due = !open_loop() || next_due_ns_ >= end_ns_;
    if (now >= end_ns_ && all_due && in_flight_ == 0 && waiting_.empty()) return false;
    if (open_loop()) {
      while (next_due_ns_ <= now && next_due_ns_ < end_ns_) {
        waiting_.push_back(next_due_ns_);
        Advance();
      }
      while (!waiting_.empty() && !free_.empty()) {
        const uint32_t tag = free_.back();
        free_.pop_back();
        const int64_t due = waiting_.front();
        waiting_.pop_front();
        // Only what the generator itself is to blame for: a connection was free when it was due.
        if (freed_ns_ <= due) result_->late_ns = std::max(result_->late_ns, now - due);
        Send(tag, due, now);
      }
    } else if (now < end_ns_) {
      while (!free_.empty()) {
        const uint32_t tag = free_.back();
        free_.pop_back();
        Send(tag, now, now);
      }
    }
    int64_t wait = std::min(kLongestWaitNs, end_ns_ + options_.drain_ns - now);
    if (open_loop() && next_due_ns_ < end_ns_ && !free_.empty()) {
      wait = std::min(wait, std::max<int64_t>(0, next_due_ns_ - now - options_.spin_ns));
    }
    if (now < end_ns_) wait = std::min(wait, std::max<int64_t>(0, end_ns_ - now));
    for (const Poller::Event& event : poller_.Wait(std::max<int64_t>(0, wait))) Handle(event);
    if (reopening_ > 0) Reopen();
    return true;
  }

  void Handle(const Poller::Event& event) {
    Connection& connection = connections_[event.tag];
    if (connection.fd < 0) return;
    if (!connection.connected) {
      if (!FinishConnect(event.tag)) Refused(event.tag);
      return;
    }
    if (event.writable && connection.writing) Write(event.tag);
    if (event.readable && connection.fd >= 0) Read(event.tag);
  }

  bool Open(uint32_t tag, int64_t now) {
    Connection& connection = connections_[tag];
    const int fd = socket(address_->ai_family, SOCK_STREAM, 0);
    if (fd < 0) return false;
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection.fd = fd;
    connection.connected = false;
    connection.retry_ns = now;
    const int failed = connect(fd, address_->ai_addr, address_->ai_addrlen);
    const int error = errno;
    poller_.Add(fd, tag, true);
    if (failed == 0) {
      Connected(tag);
    } else if (error != EINPROGRESS) {
      Close(tag);
      errno = error;
      return false;
    }
    return true;
  }

  bool FinishConnect(uint32_t tag) {
    int error = 0;
    socklen_t length = sizeof error;
    (void)getsockopt(connections_[tag].fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) {
      errno = error;
      return false;
    }
    Connected(tag);
    return true;
  }

  void Connected(uint32_t tag) {
    Connection& connection = connections_[tag];
    poller_.Change(connection.fd, tag, false);
    connection.connected = true;
    ++connected_;
    refusals_ = 0;
    Free(tag);
  }

  void Free(uint32_t tag) {
    if (free_.empty()) freed_ns_ = NowNs();
    free_.push_back(tag);
  }

  void Close(uint32_t tag) {
    Connection& connection = connections_[tag];
    if (connection.fd < 0) return;
    poller_.Remove(connection.fd, tag);
    close(connection.fd);
    connection.fd = -1;
    if (connection.connected) --connected_;
    connection.connected = connection.busy = connection.writing = false;
    free_.erase(std::remove(free_.begin(), free_.end(), tag), free_.end());
  }

  // A connection that ended is made anew; where nobody listens any more, that is the end.
  void Lost(uint32_t tag) {
    Connection& connection = connections_[tag];
    if (connection.busy) {
      ++result_->broken;
      --in_flight_;
      CountFailure();
    }
    Close(tag);
    connection.retry_ns = 0;
    ++reopening_;
  }

  void Refused(uint32_t tag) {
    Close(tag);
    connections_[tag].retry_ns = NowNs() + kRetryNs;
    ++reopening_;
    if (++refusals_ >= kMostRefusals && connected_ == 0) result_->gone = true;
  }

  void Reopen() {
    const int64_t now = NowNs();
    for (uint32_t tag = 0; tag < connections_.size() && reopening_ > 0; ++tag) {
      if (connections_[tag].fd >= 0 || connections_[tag].retry_ns > now) continue;
      --reopening_;
      if (!Open(tag, now)) Refused(tag);
    }
  }

  void Send(uint32_t tag, int64_t due, int64_t now) {
    Connection& connection = connections_[tag];
    connection.busy = true;
    connection.request = &options_.requests[next_request_++ % options_.requests.size()];
    connection.written = 0;
    connection.due_ns = due;
    connection.sent_ns = now;
    connection.answer.Reset();
    ++in_flight_;
    Write(tag);
  }

  void Write(uint32_t tag) {
    Connection& connection = connections_[tag];
    const std::string& request = *connection.request;
    while (connection.written < request.size()) {
      const ssize_t count = send(connection.fd, request.data() + connection.written,
                                 request.size() - connection.written, kNoSignal);
      if (count > 0) {
        connection.written += static_cast<size_t>(count);
        result_->bytes_out += static_cast<uint64_t>(count);
      } else if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        if (!connection.writing) poller_.Change(connection.fd, tag, true);
        connection.writing = true;
        return;
      } else if (count < 0 && errno == EINTR) {
        continue;
      } else {
        // What the server said before it hung up may lie there still.
        if (!connection.writing) poller_.Change(connection.fd, tag, false);
        connection.writing = false;
        connection.written = request.size();
        return;
      }
    }
    if (connection.writing) poller_.Change(connection.fd, tag, false);
    connection.writing = false;
  }

  void Read(uint32_t tag) {
    Connection& connection = connections_[tag];
    const ssize_t count = recv(connection.fd, buffer_.get(), kReadBytes, 0);
    if (count < 0) {
      if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) Lost(tag);
      return;
    }
    if (count == 0) {
      if (connection.busy && connection.answer.EndsWithConnection()) Answered(tag);
      Lost(tag);
      return;
    }
    result_->bytes_in += static_cast<uint64_t>(count);
    if (!connection.busy) {
      Lost(tag);  // nobody asked
      return;
    }
    switch (connection.answer.Add({buffer_.get(), static_cast<size_t>(count)})) {
      case HttpAnswer::State::kMore:
        return;
      case HttpAnswer::State::kWrong:
        Lost(tag);
        return;
      case HttpAnswer::State::kDone: {
        const bool stays = connection.answer.stays() && !connection.writing;
        Answered(tag);
        if (stays) {
          Free(tag);
        } else {
          Lost(tag);
        }
      }
    }
  }

  void Answered(uint32_t tag) {
    Connection& connection = connections_[tag];
    const int64_t now = NowNs();
    connection.busy = false;
    --in_flight_;
    const int status = connection.answer.status();
    if (status < 200 || status > 299) {
      ++result_->other_statuses[status];
      if (result_->first_error.empty()) {
        result_->first_error = connection.answer.body().substr(0, kMostErrorBytes);
      }
      CountFailure();
      return;
    }
    const int64_t latency = now - connection.due_ns;
    ++result_->latency[HistogramIndex(latency)];
    ++result_->service[HistogramIndex(now - connection.sent_ns)];
    result_->max_ns = std::max(result_->max_ns, latency);
    ++result_->completed;
    in_time_ += now < end_ns_;
    ++connection.answered;
    connection.answered_ns = now;
    __atomic_fetch_add(&progress_->completed, 1, __ATOMIC_RELAXED);
  }

  void CountFailure() { __atomic_fetch_add(&progress_->failed, 1, __ATOMIC_RELAXED); }

#if defined(MSG_NOSIGNAL)
  static constexpr int kNoSignal = MSG_NOSIGNAL;
#else
  static constexpr int kNoSignal = 0;
#endif

  const HttpLoadOptions& options_;
  HttpLoadProgress* const progress_;
  HttpLoadResult* const result_;
  const addrinfo* address_ = nullptr;
  Poller poller_;
  std::vector<Connection> connections_;
  std::vector<uint32_t> free_;   // tags of connections that wait for a request
  std::deque<int64_t> waiting_;  // when requests were due that wait for a connection
  std::mt19937_64 random_;
  std::uniform_real_distribution<double> uniform_{0.0, 1.0};
  const std::unique_ptr<char[]> buffer_;
  int64_t start_ns_ = 0;
  int64_t end_ns_ = 0;
  int64_t next_due_ns_ = 0;
  double due_exact_ = 0;  // from the start: rounded gaps would add up
  int64_t freed_ns_ = 0;  // since when a connection is free
  size_t next_request_ = 0;
  uint64_t in_time_ = 0;  // answers within the duration
  size_t connected_ = 0;
  size_t in_flight_ = 0;
  size_t reopening_ = 0;
  int refusals_ = 0;
};

}  // namespace

Status RunHttpLoad(const HttpLoadOptions& options, HttpLoadProgress* progress, HttpLoadResult* result) {
  if (options.requests.empty() || options.connections == 0) {
    return Status::InvalidInput("a load needs a request and a connection");
  }
#if defined(__linux__)
  prctl(PR_SET_TIMERSLACK, 1000UL);
#endif
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int failed =
      getaddrinfo(options.host.c_str(), std::to_string(options.port).c_str(), &hints, &list);
  if (failed != 0) {
    return Status::Model("cannot find " + options.host + ": " + gai_strerror(failed));
  }
  const std::unique_ptr<addrinfo, FreeAddresses> addresses(list);
  // localhost is two addresses, and a server need not listen at both.
  Status status;
  for (const addrinfo* address = list; address; address = address->ai_next) {
    status = Generator(options, progress, result).Run(address);
    if (status.ok()) return status;
  }
  return status;
}

}  // namespace tercel
