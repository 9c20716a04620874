#include "load/poller.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#if defined(__linux__)
#include <sys/epoll.h>
#include <sys/syscall.h>
#endif

namespace tercel {

#if defined(__linux__)

namespace {

constexpr int kMostEvents = 256;

// Milliseconds would make a request up to one late; before Linux 5.11 they are all there is.
int WaitNs(int epoll, epoll_event* events, int64_t timeout_ns) {
#if defined(SYS_epoll_pwait2)
  static bool has_nanoseconds = true;
  if (has_nanoseconds && timeout_ns > 0) {
    const timespec timeout = {static_cast<time_t>(timeout_ns / 1'000'000'000),
                              static_cast<long>(timeout_ns % 1'000'000'000)};
    const long count = syscall(SYS_epoll_pwait2, epoll, events, kMostEvents, &timeout, nullptr, 0);
    if (count >= 0 || errno == EINTR) return static_cast<int>(std::max(0L, count));
    has_nanoseconds = false;
  }
#endif
  const int ms =
      timeout_ns < 0 ? -1 : static_cast<int>(std::min<int64_t>(timeout_ns / 1'000'000, 1000));
  return std::max(0, epoll_wait(epoll, events, kMostEvents, ms));
}

void Control(int epoll, int what, int fd, uint32_t tag, bool writable) {
  epoll_event event = {};
  event.events = EPOLLIN | (writable ? EPOLLOUT : 0u);
  event.data.u32 = tag;
  (void)epoll_ctl(epoll, what, fd, &event);
}

}  // namespace

Poller::Poller() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}
Poller::~Poller() {
  if (epoll_ >= 0) close(epoll_);
}
bool Poller::ok() const { return epoll_ >= 0; }
void Poller::Add(int fd, uint32_t tag, bool writable) {
  Control(epoll_, EPOLL_CTL_ADD, fd, tag, writable);
}
void Poller::Change(int fd, uint32_t tag, bool writable) {
  Control(epoll_, EPOLL_CTL_MOD, fd, tag, writable);
}
void Poller::Remove(int fd, uint32_t tag) { Control(epoll_, EPOLL_CTL_DEL, fd, tag, false); }

const std::vector<Poller::Event>& Poller::Wait(int64_t timeout_ns) {
  epoll_event ready[kMostEvents];
  const int count = WaitNs(epoll_, ready, timeout_ns);
  events_.clear();
  for (int i = 0; i < count; ++i) {
    const uint32_t what = ready[i].events;
    events_.push_back(
        {ready[i].data.u32, (what & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0, (what & EPOLLOUT) != 0});
  }
  return events_;
}

#else

Poller::Poller() = default;
Poller::~Poller() = default;
bool Poller::ok() const { return true; }
void Poller::Add(int fd, uint32_t tag, bool writable) {
  if (watched_.size() <= tag) watched_.resize(tag + 1);
  watched_[tag] = {fd, writable};
}
void Poller::Change(int fd, uint32_t tag, bool writable) { Add(fd, tag, writable); }
void Poller::Remove(int, uint32_t tag) { watched_[tag] = {}; }

const std::vector<Poller::Event>& Poller::Wait(int64_t timeout_ns) {
  std::vector<pollfd> polled;
  std::vector<uint32_t> tags;
  for (uint32_t tag = 0; tag < watched_.size(); ++tag) {
    if (watched_[tag].fd < 0) continue;
    const int wanted = POLLIN | (watched_[tag].writable ? POLLOUT : 0);
    polled.push_back({watched_[tag].fd, static_cast<short>(wanted), 0});
    tags.push_back(tag);
  }
  const int ms =
      timeout_ns < 0 ? -1 : static_cast<int>(std::min<int64_t>(timeout_ns / 1'000'000, 1000));
  events_.clear();
  if (poll(polled.data(), static_cast<nfds_t>(polled.size()), ms) <= 0) return events_;
  for (size_t i = 0; i < polled.size(); ++i) {
    const short what = polled[i].revents;
    if (what == 0) continue;
    events_.push_back({tags[i], (what & (POLLIN | POLLERR | POLLHUP)) != 0, (what & POLLOUT) != 0});
  }
  return events_;
}

#endif

}  // namespace tercel
