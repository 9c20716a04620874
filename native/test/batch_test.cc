// Batches: who shares one, whose memory it is, and what the failure or the end of one request means for
// its neighbours.
#include <cmath>
#include <cstring>
#include <set>
#include <thread>

#include "base/clock.h"
#include "check.h"
#include "fixture.h"
#include "sched/padding.h"

using namespace tercel;
using namespace tercel::test;

namespace {

constexpr int64_t kSecond = 1'000'000'000;

ModelOptions Batches(uint32_t max_batch, int64_t delay_ns = 0, int lanes = 1) {
  ModelOptions options;
  options.scheduler.lanes = lanes;
  options.scheduler.batch.max_batch = max_batch;
  options.scheduler.batch.max_delay_ns = delay_ns;
  return options;
}

// Enters a job whose input is JSON still.
Status EnterText(Model* model, Ref<Job> job, const std::string& text) {
  if (Status s = model->scheduler().Reserve(job); !s.ok()) return s;
  job->unread.text = text;
  job->unread.inputs.push_back({0, 0, text.size(), 100});
  model->scheduler().Ready(job);
  return {};
}

std::string TextOf(float value, uint32_t rows) {
  std::string text = "[";
  for (uint32_t i = 0; i < rows * 4; ++i) text += (i ? "," : "") + std::to_string(value);
  return text + "]";
}

// What the tiny model adds to its first column.
float Weight(Model* model) {
  Ref<Inbox> inbox(new Inbox);
  CHECK_OK(Enter(model, RowsJob(model, inbox, 1), 0));
  return Result(inbox->Wait(1)[0].get());
}

}  // namespace

TEST(FullBatchesGoAtOnce) {
  auto model = LoadModel(tiny_model, Batches(4, 60 * kSecond));
  model->scheduler().Configure(Batches(1).scheduler);
  model->scheduler().Configure(Batches(4, 60 * kSecond).scheduler);
  Ref<Inbox> inbox(new Inbox);
  std::vector<Ref<Job>> jobs;
  for (int i = 0; i < 8; ++i) {
    jobs.push_back(RowsJob(model.get(), inbox, 1));
    CHECK_OK(Enter(model.get(), jobs.back(), static_cast<float>(i)));
  }
  inbox->Wait(8);
  const SchedulerStats stats = model->scheduler().Stats();
  CHECK_EQ(stats.runs, uint64_t{2});
  CHECK_EQ(stats.rows, uint64_t{8});
  CHECK_EQ(stats.batches.size(), size_t{1});
  CHECK_EQ(stats.batches[0].rows, uint32_t{4});
  for (int i = 1; i < 8; ++i) CHECK_EQ(std::lround(Result(jobs[i].get()) - Result(jobs[0].get())), i);
}

TEST(WhatWaitsLongEnoughGoesAlone) {
  auto model = LoadModel(tiny_model, Batches(4, 20'000'000));
  Ref<Inbox> inbox(new Inbox);
  const int64_t start = NowNs();
  CHECK_OK(Enter(model.get(), RowsJob(model.get(), inbox, 1), 1));
  CHECK_OK(Enter(model.get(), RowsJob(model.get(), inbox, 2), 1));
  inbox->Wait(2);
  CHECK(NowNs() - start >= 20'000'000);
  CHECK_EQ(model->scheduler().Stats().runs, uint64_t{1});
}

TEST(PreferredSizesDoNotWait) {
  ModelOptions options = Batches(8, 60 * kSecond);
  options.scheduler.batch.preferred = {3};
  auto model = LoadModel(tiny_model, options);
  Ref<Inbox> inbox(new Inbox);
  for (int i = 0; i < 3; ++i) CHECK_OK(Enter(model.get(), RowsJob(model.get(), inbox, 1), 1));
  inbox->Wait(3);
  CHECK_EQ(model->scheduler().Stats().runs, uint64_t{1});
}

TEST(OtherShapesAndPrioritiesHaveTheirOwnBatches) {
  auto model = LoadModel(slow_model, Batches(8));
  // The slow model has no rows.
  const int64_t dims[] = {64, 64};
  CHECK(!model->BucketFor({{0, DType::kFloat32, dims, 2}, {1, DType::kInt64, nullptr, 0}}, {0}));
  auto tiny = LoadModel(tiny_model, Batches(8, 50'000'000));
  Ref<Inbox> inbox(new Inbox);
  for (const int priority : {1, 4, 1, 4}) {
    Ref<Job> job = RowsJob(tiny.get(), inbox, 1);
    job->priority = priority;
    CHECK_OK(Enter(tiny.get(), job, 1));
  }
  const auto done = inbox->Wait(4);
  CHECK_EQ(tiny->scheduler().Stats().runs, uint64_t{2});
  CHECK_EQ(done[0]->priority + done[1]->priority, 2);
}

TEST(TheCancelledIsNotRunAndItsNeighboursAre) {
  auto model = LoadModel(tiny_model, Batches(4, 60 * kSecond));
  Ref<Inbox> inbox(new Inbox);
  std::vector<Ref<Job>> jobs;
  for (int i = 0; i < 3; ++i) {
    jobs.push_back(RowsJob(model.get(), inbox, 1));
    CHECK_OK(Enter(model.get(), jobs.back(), static_cast<float>(i)));
  }
  CHECK(model->scheduler().Cancel(jobs[1].get(), Status::Aborted("no more")));
  CHECK(inbox->Wait(1)[0].get() == jobs[1].get());
  CHECK_EQ(jobs[1]->started_ns, int64_t{0});
  // Two more fill what counts as ready; the gap divides the rows into two runs.
  for (int i = 3; i < 5; ++i) {
    jobs.push_back(RowsJob(model.get(), inbox, 1));
    CHECK_OK(Enter(model.get(), jobs.back(), static_cast<float>(i)));
  }
  model->scheduler().Configure(Batches(4).scheduler);
  CHECK_OK(Enter(model.get(), RowsJob(model.get(), inbox, 1), 9));
  inbox->Wait(6);
  for (const int i : {2, 3, 4}) {
    CHECK_OK(jobs[i]->status);
    CHECK_EQ(std::lround(Result(jobs[i].get()) - Result(jobs[0].get())), i);
  }
  CHECK_EQ(model->scheduler().Stats().cancelled, uint64_t{1});
}

TEST(CancelAndBatchRace) {
  auto model = LoadModel(tiny_model, Batches(16, 0, 2));
  const float weight = Weight(model.get());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      Ref<Inbox> inbox(new Inbox);
      std::vector<Ref<Job>> mine;
      for (int i = 0; i < 800; ++i) {
        Ref<Job> job = RowsJob(model.get(), inbox, 1 + i % 3);
        if (i % 5 == 0) job->deadline_ns = NowNs() + kSecond;
        const auto value = static_cast<float>(t * 1000 + i);
        CHECK_OK(i % 7 < 3 ? EnterText(model.get(), job, TextOf(value, job->rows))
                           : Enter(model.get(), job, value));
        if (i % 4 == 0) (void)model->scheduler().Cancel(job.get(), Status::Aborted("raced"));
        mine.push_back(std::move(job));
        if (i % 50 == 49) inbox->Wait(static_cast<size_t>(i) + 1);
      }
      inbox->Wait(800);
      for (int i = 0; i < 800; ++i) {
        if (mine[i]->status.ok() &&
            Result(mine[i].get()) != weight + static_cast<float>(t * 1000 + i)) {
          ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
  CHECK_EQ(model->scheduler().Stats().failed, uint64_t{0});
}

TEST(LargeRequestsAreSplit) {
  auto model = LoadModel(tiny_model, Batches(4, 0, 2));
  const float weight = Weight(model.get());
  Ref<Inbox> inbox(new Inbox);
  constexpr uint32_t kRows = 11;
  Ref<Job> job(new Job(inbox));
  Ref<Lease> lease = Lease::Take(TheRuntime()->arena(), kRows * 32);
  auto* x = reinterpret_cast<float*>(lease->data());
  auto* y = x + kRows * 4;
  for (uint32_t i = 0; i < kRows * 4; ++i) x[i] = static_cast<float>(i / 4);
  const int64_t dims[] = {kRows, 4};
  job->bucket = model->BucketFor({{0, DType::kFloat32, dims, 2}}, {0});
  job->rows = kRows;
  job->leases.push_back(lease);
  job->sources.push_back(lease->data());
  job->targets.push_back(lease->data() + kRows * 16);
  const uint64_t before = model->scheduler().Stats().runs;
  CHECK_OK(model->scheduler().Submit(job));
  CHECK_OK(Enter(model.get(), RowsJob(model.get(), inbox, 1), 1));
  inbox->Wait(2);
  CHECK_OK(job->status);
  CHECK_EQ(model->scheduler().Stats().runs - before, uint64_t{4});
  for (uint32_t row = 0; row < kRows; ++row) CHECK_EQ(y[row * 4], weight + static_cast<float>(row));
}

TEST(ResultsThatAreKeptHoldNoInputs) {
  auto model = LoadModel(tiny_model, Batches(1));
  const float weight = Weight(model.get());
  Ref<Inbox> inbox(new Inbox);
  std::set<const uint8_t*> inputs;
  std::vector<Ref<Lease>> results;
  for (int i = 0; i < 20; ++i) {
    Ref<Job> job = RowsJob(model.get(), inbox, 1);
    CHECK_OK(Enter(model.get(), job, static_cast<float>(i)));
    (void)inbox->Wait(static_cast<size_t>(i) + 1);
    CHECK_OK(job->status);
    inputs.insert(job->block->inputs()->data());
    results.push_back(job->block->outputs());
  }
  // One fills while a lane has its hand on the last one, perhaps.
  CHECK(inputs.size() <= 3);
  for (size_t i = 0; i < results.size(); ++i) {
    const auto* result = reinterpret_cast<const float*>(results[i]->data());
    CHECK_EQ(*result, weight + static_cast<float>(i));
  }
}

TEST(OnlyTheGuiltyFails) {
  auto model = LoadModel(gather_model, Batches(4, 60 * kSecond));
  Ref<Inbox> inbox(new Inbox);
  std::vector<Ref<Job>> jobs;
  for (const int64_t index : {0, 7, 1, 2}) {  // 7 is out of range
    jobs.push_back(EnterIndex(model.get(), inbox, index));
  }
  inbox->Wait(4);
  CHECK_OK(jobs[0]->status);
  CHECK(jobs[1]->status.code() == Code::kInvalidInput);  // as ONNX Runtime says
  CHECK_OK(jobs[2]->status);
  CHECK_OK(jobs[3]->status);
  CHECK_EQ(Result(jobs[3].get()), 2.5f);
  const SchedulerStats stats = model->scheduler().Stats();
  CHECK_EQ(stats.retried, uint64_t{1});
  CHECK_EQ(stats.failed, uint64_t{0});
  CHECK_EQ(stats.invalid, uint64_t{1});
}

TEST(JsonIsReadWhereItRunsAndTheWrongFailsAlone) {
  auto model = LoadModel(tiny_model, Batches(7, 60 * kSecond));
  Ref<Inbox> inbox(new Inbox);
  std::vector<Ref<Job>> jobs;
  const std::vector<std::string> texts = {TextOf(0, 1), TextOf(1, 2), "[1,2,3,x]",
                                          "",           "[5,6]",      TextOf(5, 1)};
  for (const std::string& text : texts) {
    jobs.push_back(RowsJob(model.get(), inbox, text == texts[1] ? 2 : 1));
    CHECK_OK(text.empty() ? Enter(model.get(), jobs.back(), 3)
                          : EnterText(model.get(), jobs.back(), text));
  }
  inbox->Wait(6);
  CHECK(jobs[2]->status.code() == Code::kInvalidInput);
  CHECK_EQ(jobs[2]->status.message(),
           std::string("input \"x\": element 3 of data, x, is no FP32 (byte 107)"));
  CHECK_EQ(jobs[4]->status.message(),
           std::string("input \"x\": the shape holds 4 elements, data has 2"));
  for (const int i : {1, 3, 5}) {
    CHECK_OK(jobs[i]->status);
    CHECK_EQ(std::lround(Result(jobs[i].get()) - Result(jobs[0].get())), i);
  }
  const SchedulerStats stats = model->scheduler().Stats();
  CHECK_EQ(stats.runs, uint64_t{1});
  CHECK_EQ(stats.failed, uint64_t{0});
  CHECK_EQ(stats.retried, uint64_t{0});

  // Alone, nothing is left to run.
  Ref<Job> alone = RowsJob(model.get(), inbox, 1);
  model->scheduler().Configure(Batches(7).scheduler);
  CHECK_OK(EnterText(model.get(), alone, "[1,2,3]"));
  inbox->Wait(7);
  CHECK(alone->status.code() == Code::kInvalidInput);
  CHECK_EQ(model->scheduler().Stats().runs, uint64_t{1});
}

TEST(OnlyTheUnreadableAndTheGuiltyFail) {
  auto model = LoadModel(gather_model, Batches(4, 60 * kSecond));
  Ref<Inbox> inbox(new Inbox);
  std::vector<Ref<Job>> jobs;
  for (const char* text : {"[0]", "[7]", "[1.5]", "[2]"}) {  // 7 is out of range
    const int64_t dims[] = {1};
    Ref<Job> job(new Job(inbox));
    job->bucket = model->BucketFor({{0, DType::kInt64, dims, 1}}, {0});
    job->rows = 1;
    CHECK_OK(EnterText(model.get(), job, text));
    jobs.push_back(std::move(job));
  }
  inbox->Wait(4);
  CHECK_OK(jobs[0]->status);
  CHECK(jobs[1]->status.code() == Code::kInvalidInput);  // as ONNX Runtime says
  CHECK(jobs[2]->status.code() == Code::kInvalidInput);
  CHECK_OK(jobs[3]->status);
  CHECK_EQ(Result(jobs[3].get()), 2.5f);
}

TEST(OrderIsKeptOnRequest) {
  ModelOptions options = Batches(2, 0, 3);
  options.scheduler.preserve_order = true;
  auto model = LoadModel(tiny_model, options);
  Ref<Inbox> inbox(new Inbox);
  std::vector<Job*> order;
  for (int i = 0; i < 300; ++i) {
    Ref<Job> job = RowsJob(model.get(), inbox, 1);
    job->priority = 1 + i % 8;
    order.push_back(job.get());
    CHECK_OK(Enter(model.get(), job, 1));
  }
  const auto done = inbox->Wait(300);
  size_t wrong = 0;
  for (size_t i = 0; i < done.size(); ++i) wrong += done[i].get() != order[i];
  CHECK_EQ(wrong, size_t{0});
}

TEST(ClosingEndsWhatIsReservedQueuedAndInABatch) {
  for (int round = 0; round < 30; ++round) {
    const uint64_t leases = Lease::Live();
    {
      auto model = LoadModel(tiny_model, Batches(8, round % 3 == 0 ? 60 * kSecond : 0, 2));
      Ref<Inbox> inbox(new Inbox);
      Ref<Job> reserved = RowsJob(model.get(), inbox, 1);
      CHECK_OK(model->scheduler().Reserve(reserved));
      for (int i = 0; i < 5; ++i) CHECK_OK(Enter(model.get(), RowsJob(model.get(), inbox, 1), 1));
      model->scheduler().Cancel(reserved.get(), Status::Closed("the environment ended"));
      model.reset();
      CHECK_EQ(inbox->Wait(6).size(), size_t{6});
    }
    CHECK_EQ(Lease::Live(), leases);
  }
}

TEST(SubmittersAndCloseRace) {
  for (int round = 0; round < 20; ++round) {
    auto model = LoadModel(tiny_model, Batches(8, 0, 2));
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
      // As handles do: each holds the model while it submits.
      threads.emplace_back([model] {
        Ref<Inbox> inbox(new Inbox);
        size_t entered = 0;
        for (int i = 0; i < 50; ++i)
          entered += Enter(model.get(), RowsJob(model.get(), inbox, 1), 1).ok();
        inbox->Wait(entered);
      });
    }
    model->scheduler().Configure(Batches(round % 2 ? 8 : 3).scheduler);
    model.reset();
    for (std::thread& thread : threads) thread.join();
  }
}

TEST(LateRequestsAreRefusedAtTheDoor) {
  auto model = LoadModel(slow_model, Batches(1));
  Ref<Inbox> inbox(new Inbox);
  // Runs of some milliseconds are known.
  for (int i = 0; i < 3; ++i) CHECK_OK(model->scheduler().Submit(SlowJob(model.get(), inbox, 1000)));
  inbox->Wait(3);
  for (int i = 0; i < 20; ++i) CHECK_OK(model->scheduler().Submit(SlowJob(model.get(), inbox, 1000)));
  Ref<Job> late = SlowJob(model.get(), inbox, 1);
  late->deadline_ns = NowNs() + 3'000'000;
  const Status refused = model->scheduler().Submit(late);
  CHECK(refused.code() == Code::kTimeout);
  CHECK_EQ(model->scheduler().Stats().refused, uint64_t{1});
  inbox->Wait(23);
}

TEST(ComputeIsSharedFairly) {
  ComputeBudget budget(1);
  ComputeClaim light(1, 1), heavy(1, 3);
  std::atomic<bool> stop{false};
  std::atomic<int> turns[2] = {0, 0};
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  std::atomic<int> asking{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      ComputeClaim* claim = i % 2 ? &heavy : &light;
      while (!stop) {
        ++asking;
        const int granted = budget.Acquire(claim);
        --asking;
        if (!granted) return;
        most = std::max(most.load(), ++inside);
        // Shares are of what several want: whoever is alone gets all.
        while (!stop && asking < 3) std::this_thread::yield();
        --inside;
        ++turns[i % 2];
        budget.Release(claim, granted, 1000);
      }
    });
  }
  while (turns[0] + turns[1] < 4000) std::this_thread::yield();
  const double ratio = static_cast<double>(turns[1]) / turns[0];
  stop = true;
  budget.Abandon(&light);
  budget.Abandon(&heavy);
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(most.load(), 1);
  CHECK(ratio > 2.0 && ratio < 4.5);
}

TEST(ComputeLimitHoldsOverModels) {
  auto a = LoadModel(slow_model, Batches(1, 0, 2));
  auto b = LoadModel(slow_model, Batches(1, 0, 2));
  ComputeBudget* budget = TheRuntime()->budget();
  const int before = budget->limit();
  budget->SetLimit(2);
  Ref<Inbox> inbox(new Inbox);
  for (Model* model : {a.get(), b.get()}) {
    for (int i = 0; i < 6; ++i) CHECK_OK(model->scheduler().Submit(SlowJob(model, inbox, 300)));
  }
  uint64_t most = 0;
  while (inbox->count() < 12) {
    // Of one moment: what `a` does is the same before and behind the look at `b`.
    const SchedulerStats first = a->scheduler().Stats();
    const uint64_t others = b->scheduler().Stats().running;
    const SchedulerStats again = a->scheduler().Stats();
    if (first.runs == again.runs && first.running == again.running) {
      most = std::max(most, first.running + others);
    }
    std::this_thread::yield();
  }
  inbox->Wait(12);
  budget->SetLimit(before);
  CHECK(most <= 2);
}

TEST(PaddingGoesInAndOut) {
  const float from[] = {1, 2, 3, 4, 5, 6};  // [2,3]
  const int64_t dims[] = {2, 3};
  const std::vector<int64_t> padded = {2, 5};
  const float fill = -1;
  float to[10];
  Pad(from, dims, padded, 4, &fill, to);
  const float expected[] = {1, 2, 3, -1, -1, 4, 5, 6, -1, -1};
  CHECK(std::memcmp(to, expected, sizeof to) == 0);
  float back[6];
  CHECK_EQ(Crop(to, padded.data(), {2, 3}, 4, back), size_t{24});
  CHECK(std::memcmp(back, from, sizeof back) == 0);
  CHECK_EQ((PadRule{"n", {8, 16}, 0}.SizeFor(9)), int64_t{16});
  CHECK_EQ((PadRule{"n", {8, 16}, 0}.SizeFor(17)), int64_t{17});
  CHECK_EQ((PadRule{"n", {}, 4}.SizeFor(9)), int64_t{12});
}
