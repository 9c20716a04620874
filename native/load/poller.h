// Waits for sockets, with nanoseconds where the system has them: epoll on Linux, poll elsewhere.
#pragma once

#include <cstdint>
#include <vector>

namespace tercel {

// One thread's own.
class Poller {
 public:
  struct Event {
    uint32_t tag;
    bool readable;
    bool writable;
  };

  Poller();
  ~Poller();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // Whether the system gave what is needed.
  bool ok() const;
  // `tag` names the socket in events; a small number. Readable is always waited for.
  void Add(int fd, uint32_t tag, bool writable);
  void Change(int fd, uint32_t tag, bool writable);
  // REQUIRED before the socket is closed.
  void Remove(int fd, uint32_t tag);
  // Events until `timeout_ns` has passed (negative: none in time does not matter).
  const std::vector<Event>& Wait(int64_t timeout_ns);

 private:
  std::vector<Event> events_;
  int epoll_ = -1;
  // Elsewhere than on Linux: by tag.
  struct Watched {
    int fd = -1;
    bool writable = false;
  };
  std::vector<Watched> watched_;
};

}  // namespace tercel
