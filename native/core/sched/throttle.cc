#include "sched/throttle.h"

#if defined(__linux__)
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/processor_share.h"
#endif

namespace tercel {

#if defined(__linux__)

namespace {

constexpr int kNice = 19;
// The shortest: whoever wakes need not wait for the end of one of the usual 3 ms.
constexpr int64_t kSliceNs = 100'000;

// How long the thread works while runs compute, and how long it then pauses.
constexpr long kTurnNs = 100'000;
constexpr long kPauseNs = 100'000;
// How often it looks where none does: five times as often took a fifth more time.
constexpr long kLookNs = 500'000;
constexpr long kUninterruptedNs = 1'000'000;

int64_t ThreadNs() {
  timespec used;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return int64_t{used.tv_sec} * 1'000'000'000 + used.tv_nsec;
}

}  // namespace

class Throttle::Timer {
 public:
  Timer(const std::atomic<int>& computing, int64_t least) : computing_(computing), least_(least) {}
  ~Timer();

  // False where the system has no timer or signal to give.
  bool Begin();
  static Timer* OfThread() { return of_thread_; }
  // Interrupts the thread after `ns`, once.
  void Arm(long ns);
  // When to interrupt it next.
  long GiveWay();
  int64_t paused_ns() const { return paused_ns_.load(std::memory_order_relaxed); }

 private:
  static int Signal();
  static void OnSignal(int, siginfo_t* info, void*);

  static thread_local Timer* of_thread_;

  const std::atomic<int>& computing_;
  const int64_t least_;
  int signal_ = 0;  // 0 before Begin
  timer_t timer_ = {};
  sigset_t mask_ = {};  // the thread's before
  const int64_t start_ns_ = NowNs();
  const int64_t start_thread_ns_ = ThreadNs();
  // Written by the handler, which runs on this thread.
  std::atomic<int64_t> paused_ns_{0};
};

thread_local Throttle::Timer* Throttle::Timer::of_thread_ = nullptr;

// Calls only what a signal's handler may (signal-safety(7)).
void Throttle::Timer::OnSignal(int, siginfo_t* info, void*) {
  if (info->si_code != SI_TIMER) return;  // somebody else's
  const int error = errno;
  auto* timer = static_cast<Timer*>(info->si_value.sival_ptr);
  timer->Arm(timer->GiveWay());
  errno = error;
}

long Throttle::Timer::GiveWay() {
  const int64_t now = NowNs();
  const bool is_behind = (ThreadNs() - start_thread_ns_) * least_ < now - start_ns_;
  if (computing_.load(std::memory_order_relaxed) == 0) {
    if (!is_behind) sched_yield();
    return kLookNs;
  }
  if (!is_behind) {
    const timespec pause = {0, kPauseNs};
    nanosleep(&pause, nullptr);
    paused_ns_.fetch_add(NowNs() - now, std::memory_order_relaxed);
  }
  return kTurnNs;
}

void Throttle::Timer::Arm(long ns) {
  const itimerspec once = {{0, 0}, {0, ns}};
  timer_settime(timer_, 0, &once, nullptr);
}

// The signal whose handler is ours for the life of the process; 0 where all have one.
int Throttle::Timer::Signal() {
  static const int chosen = [] {
    for (int signal = SIGRTMAX; signal > SIGRTMIN; --signal) {
      struct sigaction action = {};
      if (sigaction(signal, nullptr, &action) != 0 || action.sa_handler != SIG_DFL) continue;
      action.sa_sigaction = OnSignal;
      action.sa_flags = SA_SIGINFO | SA_RESTART;
      if (sigaction(signal, &action, nullptr) == 0) return signal;
    }
    return 0;
  }();
  return chosen;
}

bool Throttle::Timer::Begin() {
  const int signal = Signal();
  if (!signal) return false;
  sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = signal;
  event.sigev_value.sival_ptr = this;
  event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
  if (timer_create(CLOCK_MONOTONIC, &event, &timer_) != 0) return false;
  signal_ = signal;
  // The default lets the kernel add 50 us to every pause.
  prctl(PR_SET_TIMERSLACK, 1000UL);
  sigset_t ours;
  sigemptyset(&ours);
  sigaddset(&ours, signal);
  pthread_sigmask(SIG_UNBLOCK, &ours, &mask_);
  of_thread_ = this;
  Arm(kTurnNs);
  return true;
}

Throttle::Timer::~Timer() {
  if (!signal_) return;
  sigset_t ours;
  sigemptyset(&ours);
  sigaddset(&ours, signal_);
  pthread_sigmask(SIG_BLOCK, &ours, nullptr);
  timer_delete(timer_);
  // One that was sent before would find nothing here.
  const timespec now = {0, 0};
  while (sigtimedwait(&ours, nullptr, &now) > 0) {
  }
  pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
  of_thread_ = nullptr;
}

Throttle::Throttle(const std::atomic<int>& computing, bool lower, int64_t least)
    : timer_(std::make_unique<Timer>(computing, least)) {
  if (lower) {
    (void)setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kNice);
    SetSlice(kSliceNs);
  }
  if (!timer_->Begin()) timer_ = nullptr;
}

int64_t Throttle::PausedNs() {
  const Timer* timer = Timer::OfThread();
  return timer ? timer->paused_ns() : 0;
}

Throttle::Uninterrupted::Uninterrupted() {
  if (Timer* timer = Timer::OfThread()) timer->Arm(kUninterruptedNs);
}

Throttle::Uninterrupted::~Uninterrupted() {
  if (Timer* timer = Timer::OfThread()) timer->Arm(timer->GiveWay());
}

#else

class Throttle::Timer {};

Throttle::Throttle(const std::atomic<int>&, bool, int64_t) {}
int64_t Throttle::PausedNs() { return 0; }
Throttle::Uninterrupted::Uninterrupted() = default;
Throttle::Uninterrupted::~Uninterrupted() = default;

#endif

Throttle::~Throttle() = default;

}  // namespace tercel
