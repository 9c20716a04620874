#include "sched/scheduler.h"

#if defined(__linux__)
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#endif

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/processor_share.h"
#include "binding.h"
#include "check.h"
#include "fixture.h"
#include "sched/throttle.h"

using namespace tercel;
using namespace tercel::test;

namespace {

ModelOptions Lanes(int lanes, size_t max_queue = 1024) {
  ModelOptions options;
  options.scheduler.lanes = lanes;
  options.scheduler.max_queue = max_queue;
  return options;
}

}  // namespace

TEST(JobsRunAndComplete) {
  auto model = LoadModel(tiny_model, Lanes(2));
  Ref<Inbox> inbox(new Inbox);
  for (int i = 0; i < 500; ++i) {
    CHECK_OK(model->scheduler().Submit(TinyJob(model.get(), inbox, static_cast<float>(i))));
  }
  for (const Ref<Job>& job : inbox->Wait(500)) {
    CHECK_OK(job->status);
    CHECK(job->outputs[0] != nullptr);
    CHECK(job->submitted_ns <= job->started_ns && job->started_ns <= job->finished_ns);
  }
  const SchedulerStats stats = model->scheduler().Stats();
  CHECK_EQ(stats.completed, uint64_t{500});
  CHECK_EQ(stats.queued + stats.running, uint64_t{0});
}

TEST(JobsComeFromManyThreads) {
  auto model = LoadModel(tiny_model, Lanes(2, 100000));
  Ref<Inbox> inbox(new Inbox);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        Ref<Job> job = TinyJob(model.get(), inbox, 1);
        if (i % 3 == 0) job->deadline_ns = NowNs() + 10'000'000'000;
        const Ref<Job> mine = job;
        CHECK_OK(model->scheduler().Submit(std::move(job)));
        if (i % 7 == 0) (void)model->scheduler().Cancel(mine.get(), Status::Aborted("changed my mind"));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  inbox->Wait(2000);
  const SchedulerStats stats = model->scheduler().Stats();
  CHECK_EQ(stats.submitted, uint64_t{2000});
  CHECK_EQ(stats.failed, uint64_t{0});
}

namespace {

// The threads that completed jobs.
class RunningThreads : public CompletionSink {
 public:
  void Post(Ref<Completion>) override {
    std::lock_guard<std::mutex> lock(mutex_);
    ran_.push_back(std::this_thread::get_id());
    posted_.notify_all();
  }
  std::vector<std::thread::id> Wait(size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    posted_.wait(lock, [&] { return ran_.size() >= count; });
    return ran_;
  }

 private:
  ~RunningThreads() override = default;
  std::mutex mutex_;
  std::condition_variable posted_;
  std::vector<std::thread::id> ran_;
};

}  // namespace

TEST(TheLaneThatParkedLastIsWokenFirst) {
  auto model = LoadModel(slow_model, Lanes(2));
  Ref<Inbox> inbox(new Inbox);
  Ref<Job> first = SlowJob(model.get(), inbox, kForever);
  Ref<Job> second = SlowJob(model.get(), inbox, kForever);
  CHECK_OK(model->scheduler().Submit(first));
  WaitUntilRunning(model.get(), 1);
  CHECK_OK(model->scheduler().Submit(second));
  WaitUntilRunning(model.get(), 2);
  // Both lanes are there now; the one of `second` parks last.
  auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); };
  CHECK(model->scheduler().Cancel(first.get(), Status::Aborted("enough")));
  inbox->Wait(1);
  pause();
  CHECK(model->scheduler().Cancel(second.get(), Status::Aborted("enough")));
  inbox->Wait(2);
  Ref<RunningThreads> threads(new RunningThreads);
  for (size_t i = 1; i <= 6; ++i) {
    pause();
    CHECK_OK(model->scheduler().Submit(SlowJob(model.get(), threads, 1)));
    threads->Wait(i);
  }
  for (const std::thread::id& id : threads->Wait(6)) CHECK(id == threads->Wait(6).front());
}

TEST(QueueIsBounded) {
  auto model = LoadModel(slow_model, Lanes(1, 2));
  Ref<Inbox> inbox(new Inbox);
  Ref<Job> first = SlowJob(model.get(), inbox, kForever);
  CHECK_OK(model->scheduler().Submit(first));
  WaitUntilRunning(model.get(), 1);
  CHECK_OK(model->scheduler().Submit(SlowJob(model.get(), inbox, 1)));
  CHECK_OK(model->scheduler().Submit(SlowJob(model.get(), inbox, 1)));
  const Status full = model->scheduler().Submit(SlowJob(model.get(), inbox, 1));
  CHECK(full.code() == Code::kOverload);
  CHECK(model->scheduler().Cancel(first.get(), Status::Aborted("enough")));
  inbox->Wait(3);
  CHECK(first->status.code() == Code::kAborted);
  CHECK(!model->scheduler().Cancel(first.get(), Status::Aborted("again")));
}

TEST(DeadlinesReachQueueAndRun) {
  auto model = LoadModel(slow_model, Lanes(1));
  Ref<Inbox> inbox(new Inbox);
  Ref<Job> running = SlowJob(model.get(), inbox, kForever);
  running->deadline_ns = NowNs() + 150'000'000;
  Ref<Job> queued = SlowJob(model.get(), inbox, kForever);
  queued->deadline_ns = NowNs() + 30'000'000;
  CHECK_OK(model->scheduler().Submit(running));
  WaitUntilRunning(model.get(), 1);
  CHECK_OK(model->scheduler().Submit(queued));
  const auto done = inbox->Wait(2);
  CHECK(done[0].get() == queued.get());
  CHECK(queued->status.code() == Code::kTimeout);
  CHECK_EQ(queued->started_ns, int64_t{0});
  CHECK(running->status.code() == Code::kTimeout);
  Ref<Job> dead = SlowJob(model.get(), inbox, 1);
  dead->deadline_ns = NowNs() - 1;
  CHECK(model->scheduler().Submit(dead).code() == Code::kTimeout);
  CHECK_EQ(inbox->count(), size_t{2});
  CHECK_EQ(model->scheduler().Stats().expired, uint64_t{3});
}

TEST(PrioritiesGoFirst) {
  auto model = LoadModel(slow_model, Lanes(1));
  Ref<Inbox> inbox(new Inbox);
  Ref<Job> first = SlowJob(model.get(), inbox, kForever);
  CHECK_OK(model->scheduler().Submit(first));
  WaitUntilRunning(model.get(), 1);
  std::vector<Ref<Job>> jobs;
  for (const int priority : {4, 8, 1, 4}) {
    jobs.push_back(SlowJob(model.get(), inbox, 1));
    jobs.back()->priority = priority;
    CHECK_OK(model->scheduler().Submit(jobs.back()));
  }
  CHECK(model->scheduler().Cancel(first.get(), Status::Aborted("go")));
  const auto done = inbox->Wait(5);
  CHECK(done[1].get() == jobs[2].get());
  CHECK(done[2].get() == jobs[0].get());
  CHECK(done[3].get() == jobs[3].get());
  CHECK(done[4].get() == jobs[1].get());
}

TEST(ClosingEndsWhatIsQueuedAndRunning) {
  for (int round = 0; round < 20; ++round) {
    auto model = LoadModel(slow_model, Lanes(2));
    Ref<Inbox> inbox(new Inbox);
    for (int i = 0; i < 6; ++i) {
      CHECK_OK(model->scheduler().Submit(SlowJob(model.get(), inbox, kForever)));
    }
    if (round % 2) WaitUntilRunning(model.get(), 2);
    model.reset();
    CHECK_EQ(inbox->Wait(6).size(), size_t{6});
  }
}

TEST(CancelAndCompletionRace) {
  auto model = LoadModel(tiny_model, Lanes(1));
  Ref<Inbox> inbox(new Inbox);
  size_t submitted = 0;
  for (int i = 0; i < 2000; ++i) {
    Ref<Job> job = TinyJob(model.get(), inbox, 1);
    job->deadline_ns = NowNs() + 1000 + (i % 50) * 1000;
    const Status status = model->scheduler().Submit(job);
    if (status.code() == Code::kTimeout) continue;
    CHECK_OK(status);
    ++submitted;
    (void)model->scheduler().Cancel(job.get(), Status::Aborted("raced"));
  }
  inbox->Wait(submitted);
  CHECK_EQ(inbox->count(), submitted);
}

TEST(LoadsAreShared) {
  Runtime* runtime = TheRuntime();
  std::atomic<int> loads{0};
  std::vector<std::thread> threads;
  std::vector<std::shared_ptr<Model>> models(4);
  for (auto& model : models) {
    threads.emplace_back([&] {
      CHECK_OK(runtime->Share(
          "shared",
          [&](std::shared_ptr<Model>* out) {
            ++loads;
            *out = LoadModel(tiny_model);
            return Status();
          },
          &model));
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(loads.load(), 1);
  for (auto& model : models) CHECK(model == models[0]);
  models.clear();
  const Status failed = runtime->Share(
      "shared", [](std::shared_ptr<Model>*) { return Status::Model("no"); }, &models.emplace_back());
  CHECK(failed.code() == Code::kModel);
}

TEST(BindingsRun) {
  auto model = LoadModel(tiny_model);
  Ref<Binding> binding;
  CHECK_OK(Binding::Create(model, {Dims{2, 4}}, {std::nullopt}, &binding));
  auto* x = reinterpret_cast<float*>(binding->inputs()[0].lease->data());
  auto* y = reinterpret_cast<float*>(binding->outputs()[0].lease->data());
  for (int i = 0; i < 8; ++i) x[i] = 0;
  CHECK_OK(binding->RunSync());
  const float weight = y[0];
  x[4] = 2;
  CHECK_OK(binding->RunSync());
  CHECK_EQ(y[4], weight + 2);
  Ref<Binding> wrong;
  CHECK(Binding::Create(model, {Dims{2, 5}}, {std::nullopt}, &wrong).code() == Code::kInvalidInput);
  CHECK(Binding::Create(model, {std::nullopt}, {std::nullopt}, &wrong).code() == Code::kInvalidInput);
}

TEST(NothingIsLeftBehind) {
  const uint64_t leases = Lease::Live();
  const uint64_t bytes = TheRuntime()->arena()->Stats().leased_bytes;
  {
    auto model = LoadModel(tiny_model, Lanes(2));
    Ref<Inbox> inbox(new Inbox);
    for (int i = 0; i < 50; ++i) {
      CHECK_OK(model->scheduler().Submit(TinyJob(model.get(), inbox, 1)));
    }
    inbox->Wait(50);
  }
  CHECK_EQ(Lease::Live(), leases);
  CHECK_EQ(TheRuntime()->arena()->Stats().leased_bytes, bytes);
  TheRuntime()->ReturnMemory();
}

#if defined(__linux__)
TEST(SlicesAreAskedForAndNothingElseIsChanged) {
  std::thread([] {
    struct Attributes {
      uint32_t size, policy;
      uint64_t flags;
      int32_t nice;
      uint32_t priority;
      uint64_t runtime, deadline, period;
    };
    auto read = [] {
      Attributes attributes = {};
      CHECK_EQ(syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0), 0L);
      return attributes;
    };
    const Attributes before = read();
    SetSlice(100'000'000);
    const Attributes after = read();
    CHECK_EQ(after.nice, before.nice);
    CHECK_EQ(after.policy, before.policy);
    // Systems that do not know of slices say nothing.
    CHECK(after.runtime == 100'000'000 || after.runtime == before.runtime);
    SetSlice(0);
    CHECK_EQ(read().runtime, before.runtime);
    const std::atomic<int> computing{0};
    const Throttle throttle(computing, /*lower=*/true);
    const Attributes throttled = read();
    CHECK_EQ(throttled.nice, 19);
    CHECK_EQ(throttled.policy, before.policy);
    CHECK(throttled.runtime == 100'000 || throttled.runtime == before.runtime);
  }).join();
}

// Computes until `ns` of the thread's own time, or a minute, are over, or `enough` says so.
template <typename Enough>
void Compute(int64_t ns, Enough enough) {
  auto used = [] {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  };
  const int64_t start = NowNs(), end = used() + ns;
  while (used() < end && NowNs() - start < 60'000'000'000 && !enough()) {
  }
}

// However busy the machine is.
constexpr int64_t kAlways = 1000;

TEST(ThrottledWorkPausesWhileRunsCompute) {
  std::thread([] {
    CHECK_EQ(Throttle::PausedNs(), 0);
    auto never = [] { return false; };
    {
      std::atomic<int> computing{0};
      const Throttle throttle(computing, /*lower=*/false, kAlways);
      Compute(5'000'000, never);
      CHECK_EQ(Throttle::PausedNs(), 0);
      computing = 2;
      Compute(60'000'000'000, [] { return Throttle::PausedNs() > 0; });
      CHECK(Throttle::PausedNs() >= 100'000);
      computing = 0;
      Compute(200'000, never);  // a pause that had begun is over
      const int64_t paused = Throttle::PausedNs();
      Compute(5'000'000, never);
      CHECK_EQ(Throttle::PausedNs(), paused);
    }
    CHECK_EQ(Throttle::PausedNs(), 0);
    // Nothing comes later.
    Compute(2'000'000, never);
  }).join();
}

TEST(ThrottledWorkThatIsBehindDoesNotPause) {
  std::thread([] {
    std::atomic<int> computing{0};
    const Throttle throttle(computing, /*lower=*/false);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    computing = 1;
    // Less than a third of the time.
    Compute(20'000'000, [] { return false; });
    CHECK_EQ(Throttle::PausedNs(), 0);
  }).join();
}

TEST(ThrottledWorkThatIsMeasuredIsNotInterruptedForAMillisecond) {
  std::thread([] {
    const std::atomic<int> computing{1};
    const Throttle throttle(computing, /*lower=*/false, kAlways);
    Compute(60'000'000'000, [] { return Throttle::PausedNs() > 0; });  // ahead of its share
    bool seen = false;
    for (int i = 0; i < 1000 && !seen; ++i) {
      int64_t before = 0, after = 0, took = 0;
      {
        const Throttle::Uninterrupted uninterrupted;
        const int64_t start = NowNs();
        before = Throttle::PausedNs();
        Compute(400'000, [] { return false; });
        after = Throttle::PausedNs();
        took = NowNs() - start;
      }
      if (took > 900'000) continue;  // the machine is busy with others
      CHECK_EQ(after, before);
      seen = true;
    }
    CHECK(seen);
    // Interrupted again.
    const int64_t paused = Throttle::PausedNs();
    Compute(60'000'000'000, [&] { return Throttle::PausedNs() > paused; });
    CHECK(Throttle::PausedNs() > paused);
  }).join();
}

TEST(AThrottleTakesASignalThatHasNoHandlerAndLeavesTheThreadsMask) {
  std::thread([] {
    auto handled = [] {
      std::vector<int> signals;
      for (int signal = SIGRTMIN; signal <= SIGRTMAX; ++signal) {
        struct sigaction action = {};
        if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_DFL) {
          signals.push_back(signal);
        }
      }
      return signals;
    };
    sigset_t all, after;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    const std::atomic<int> computing{1};
    for (int i = 0; i < 20; ++i) {
      const Throttle throttle(computing, /*lower=*/false, kAlways);
      Compute(60'000'000'000, [] { return Throttle::PausedNs() > 0; });
      CHECK(Throttle::PausedNs() > 0);  // unblocked
    }
    const std::vector<int> signals = handled();
    CHECK_EQ(signals.size(), size_t{1});  // whichever thread was throttled first
    pthread_sigmask(SIG_SETMASK, nullptr, &after);
    CHECK(sigismember(&after, signals.front()));
    // Who sends it means nobody here.
    pthread_sigmask(SIG_UNBLOCK, &all, nullptr);
    CHECK_EQ(raise(signals.front()), 0);
  }).join();
}

TEST(ThrottledReadsAreNotCutShort) {
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  const std::atomic<int> computing{1};
  std::thread reader([&] {
    const Throttle throttle(computing, /*lower=*/false);
    char byte = 0;
    CHECK_EQ(read(ends[0], &byte, 1), 1);
    CHECK_EQ(byte, 'x');
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK_EQ(write(ends[1], "x", 1), 1);
  reader.join();
  close(ends[0]);
  close(ends[1]);
}
#endif
