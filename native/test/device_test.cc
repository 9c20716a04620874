// Runs on a GPU, with the fake of the CUDA runtime in its place and a session of the CPU's: what is
// copied, in which order and how much of it beside a run, and what is left behind.
#include "gpu/device.h"

#include <cstring>
#include <thread>

#include "base/clock.h"
#include "binding.h"
#include "check.h"
#include "fixture.h"
#include "gpu/device_runner.h"
#include "gpu/gpu_placement.h"
#include "warm_up.h"

using namespace tercel;
using namespace tercel::test;

namespace {

ModelOptions OnGpu(int lanes, bool on_stream, std::vector<uint32_t> rows = {}) {
  OpenFakeCuda();
  DeviceRunnerOptions runner;
  runner.slots = lanes;
  runner.on_stream = on_stream;
  runner.graphs = !rows.empty();
  ModelOptions options;
  options.scheduler.device_rows = std::move(rows);
  options.gpu.lanes_given = true;
  options.gpu.stand_in = runner;
  options.scheduler.lanes = lanes;
  options.scheduler.batch.max_batch = 16;
  return options;
}

Device* TheDevice() {
  OpenFakeCuda();
  (void)TheRuntime();
  Device* device = nullptr;
  CHECK_OK(Device::Get(0, &device));
  return device;
}

// The tiny model on `rows` rows of `value`, by the runner itself; the first row's first number.
Status RunTiny(Model* model, uint32_t rows, float value, float* result, bool has_rows = true) {
  std::vector<float> x(rows * 4, value), y(rows * 4, -1);
  const int64_t dims[] = {rows, 4};
  OrtValue *in = nullptr, *out = nullptr;
  CHECK_OK(MakeTensor(TheRuntime(), DType::kFloat32, dims, 2, x.data(), x.size() * 4, &in));
  CHECK_OK(MakeTensor(TheRuntime(), DType::kFloat32, dims, 2, y.data(), y.size() * 4, &out));
  const OrtPtr<OrtValue> owned_in(in), owned_out(out);
  const char* const in_name = model->inputs()[0].name.c_str();
  const char* const out_name = model->outputs()[0].name.c_str();
  const RunCall call{&in_name, &in, 1, &out_name, 1, &out, has_rows ? rows : 0};
  Status status = ToStatus(model->Run(nullptr, call), Code::kRun);
  *result = y[0];
  for (size_t i = 0; status.ok() && i < y.size(); i += 4) CHECK_EQ(y[i], y[0]);
  return status;
}

}  // namespace

TEST(MemoryOfADeviceIsKeptAndGivenBack) {
  FakeCuda* fake = OpenFakeCuda();
  Device* device = TheDevice();
  device->Trim();
  CHECK_EQ(fake->allocations.load(), 0);
  CHECK(device->capability() == "8.6" && device->pci_bus_id() == "0000:01:00.0");
  const int calls = fake->allocation_calls;
  for (int i = 0; i < 100; ++i) {
    Ref<DeviceLease> lease;
    CHECK_OK(device->Allocate(i % 2 ? 1000 : 1'000'000, &lease));
    CHECK_EQ(device->Stats().leases, uint64_t{1});
    CHECK(device->Stats().leased_bytes >= lease->bytes());
  }
  CHECK_EQ(fake->allocation_calls - calls, 2);
  CHECK_EQ(device->Stats().leased_bytes, uint64_t{0});
  CHECK_EQ(device->Stats().reserved_bytes, uint64_t{fake->allocated_bytes});

  // Full: what is kept in another size makes room.
  fake->memory_limit = fake->allocated_bytes.load() + 1000;
  Ref<DeviceLease> lease, other;
  CHECK_OK(device->Allocate(900'000, &lease));
  const Status full = device->Allocate(3'000'000, &other);
  CHECK(full.code() == Code::kOverload);
  CHECK(full.message().find("no memory on the GPU: out of memory (GPU 0, 3") != std::string::npos);
  fake->memory_limit = SIZE_MAX;
  CHECK_OK(device->Allocate(0, &other));

  float numbers[4] = {1, 2, 3, 4}, back[4] = {};
  CHECK_OK(device->CopyIn(lease->data(), numbers, sizeof numbers));
  CHECK_OK(device->CopyOut(back, lease->data(), sizeof back));
  CHECK_EQ(std::memcmp(numbers, back, sizeof back), 0);
  lease.reset();
  other.reset();
  CHECK(device->Trim() > 0);
  CHECK_EQ(fake->allocations.load(), 0);
  CHECK_EQ(fake->strange.load(), 0);
  Device* none = nullptr;
  const Status status = Device::Get(7, &none);
  CHECK(status.message().find("there is no GPU 7: the CUDA runtime finds 1") != std::string::npos);
}

TEST(RunsOnADeviceFindTheirInputsAndLeaveTheirOutputs) {
  FakeCuda* fake = OpenFakeCuda();
  for (const bool on_stream : {true, false}) {
    auto model = LoadModel(tiny_model, OnGpu(2, on_stream));
    CHECK(model->device() != nullptr);
    // Copies that are not waited for would be seen.
    fake->copy_us = 2000;
    const DeviceStats before = TheDevice()->Stats();
    const int waits = fake->waits;
    float zero = 0, result = 0;
    CHECK_OK(RunTiny(model.get(), 1, 0, &zero));
    for (uint32_t rows : {1u, 3u, 16u, 2u}) {
      CHECK_OK(RunTiny(model.get(), rows, 5, &result));
      CHECK_EQ(result, zero + 5);
    }
    const DeviceStats after = TheDevice()->Stats();
    CHECK_EQ(after.runs - before.runs, uint64_t{5});
    CHECK_EQ(after.bytes_in - before.bytes_in, uint64_t{(1 + 1 + 3 + 16 + 2) * 16});
    CHECK_EQ(after.bytes_out - before.bytes_out, uint64_t{(1 + 1 + 3 + 16 + 2) * 16});
    CHECK_EQ(after.copies_in - before.copies_in, uint64_t{5});
    CHECK(after.copy_in_ns - before.copy_in_ns >= 5 * 2'000'000);
    CHECK(after.copy_out_ns - before.copy_out_ns >= 5 * 2'000'000);
    // The host waits for the outputs, and for nothing else where the streams keep the order.
    CHECK_EQ(fake->waits - waits, on_stream ? 5 : 10);
    fake->copy_us = 0;
  }
  CHECK_EQ(fake->strange.load(), 0);
}

TEST(BatchesRunOnADevice) {
  auto model = LoadModel(tiny_model, OnGpu(2, true));
  Ref<Inbox> inbox(new Inbox);
  std::vector<Ref<Job>> jobs;
  for (int i = 0; i < 200; ++i) {
    jobs.push_back(RowsJob(model.get(), inbox, 1 + i % 3));
    CHECK_OK(Enter(model.get(), jobs.back(), static_cast<float>(i)));
  }
  inbox->Wait(200);
  float weight = 0;
  CHECK_OK(RunTiny(model.get(), 1, 0, &weight));
  for (int i = 0; i < 200; ++i) {
    CHECK_OK(jobs[i]->status);
    CHECK(std::abs(Result(jobs[i].get()) - weight - static_cast<float>(i)) < 1e-3);
  }
  CHECK(model->scheduler().Stats().runs < 200);
}

// Two or more runs in flight: while one computes, others' copies are under way.
TIMING_TEST(CopiesGoOnBesideRuns) {
  FakeCuda* fake = OpenFakeCuda();
  constexpr int kJobs = 24;
  fake->copy_us = 4000;
  auto measure = [&](int lanes) {
    ModelOptions options = OnGpu(lanes, true);
    options.scheduler.batch.max_batch = 1;
    auto model = LoadModel(slow_model, options);
    // Some 8 ms: the copies of a run take 12.
    Ref<Inbox> inbox(new Inbox);
    auto job = [&](int64_t rounds) {
      Ref<Job> made = SlowJob(model.get(), inbox, rounds);
      const int64_t dims[] = {64, 64};
      Ref<Lease> lease = Lease::Take(TheRuntime()->arena(), 64 * 64 * 4);
      CHECK_OK(MakeTensor(TheRuntime(), DType::kFloat32, dims, 2, lease->data(), 64 * 64 * 4,
                          &made->outputs[0]));
      made->leases.push_back(std::move(lease));
      return made;
    };
    // Each lane has its slot and its memory before it is measured.
    for (int i = 0; i < lanes; ++i) CHECK_OK(model->scheduler().Submit(job(1)));
    inbox->Wait(static_cast<size_t>(lanes));
    const int64_t start = NowNs();
    for (int i = 0; i < kJobs; ++i) CHECK_OK(model->scheduler().Submit(job(1500)));
    inbox->Wait(static_cast<size_t>(lanes + kJobs));
    return NowNs() - start;
  };
  // Two inputs and an output: three copies a run.
  const double copies = kJobs * 3 * 4e6;
  double hidden = 0;
  for (int attempt = 0; attempt < 3 && hidden < 0.8; ++attempt) {
    const int64_t alone = measure(1);
    const int64_t together = measure(3);
    hidden = static_cast<double>(alone - together) / copies;
  }
  fake->copy_us = 0;
  std::printf("  copies hidden by three slots: %.2f\n", hidden);
  CHECK(hidden >= 0.8);
}

TEST(BatchesAreFilledUpToTheSizeOfAGraph) {
  OpenFakeCuda();
  auto model = LoadModel(tiny_model, OnGpu(1, true, {1, 4, 8}));
  float weight = 0, result = 0;
  CHECK_OK(RunTiny(model.get(), 1, 0, &weight));
  const DeviceStats before = TheDevice()->Stats();
  for (uint32_t rows : {8u, 3u, 4u, 2u, 1u, 7u}) {
    CHECK_OK(RunTiny(model.get(), rows, static_cast<float>(rows), &result));
    CHECK_EQ(result, weight + static_cast<float>(rows));
  }
  DeviceStats after = TheDevice()->Stats();
  CHECK_EQ(after.graph_runs - before.graph_runs, uint64_t{6});
  // Only what was asked for is copied.
  CHECK_EQ(after.bytes_in - before.bytes_in, uint64_t{(8 + 3 + 4 + 2 + 1 + 7) * 16});
  // Larger ones, other shapes, and other threads than the one whose graphs the slot has, run without.
  CHECK_OK(RunTiny(model.get(), 9, 1, &result));
  CHECK_OK(RunTiny(model.get(), 5, 1, &result, false));
  std::thread([&] {
    float there = 0;
    CHECK_OK(RunTiny(model.get(), 4, 2, &there));
    CHECK_EQ(there, weight + 2);
  }).join();
  CHECK_EQ(TheDevice()->Stats().graph_runs, after.graph_runs);
  // Whose rows may not be filled up has a graph where they are as many.
  CHECK_OK(RunTiny(model.get(), 4, 1, &result, false));
  CHECK_EQ(TheDevice()->Stats().graph_runs, after.graph_runs + 1);
}

TEST(BatchesAreFilledUpToSizesThatWereWarmed) {
  FakeCuda* fake = OpenFakeCuda();
  ModelOptions options = OnGpu(1, true, {64, 1024});
  options.gpu.stand_in->graphs = false;
  auto model = LoadModel(tiny_model, options);
  float weight = 0, result = 0;
  CHECK_OK(RunTiny(model.get(), 1, 0, &weight));
  CHECK_OK(RunTiny(model.get(), 600, 1, &result));
  const DeviceStats before = TheDevice()->Stats();
  const int calls = fake->allocation_calls;
  for (uint32_t rows : {1000u, 64u, 601u, 1024u, 2u}) {
    CHECK_OK(RunTiny(model.get(), rows, static_cast<float>(rows), &result));
    CHECK_EQ(result, weight + static_cast<float>(rows));
  }
  // There was room for 1,024 from the first run of more than 64 on; what is copied is what is there.
  CHECK_EQ(fake->allocation_calls - calls, 0);
  const DeviceStats after = TheDevice()->Stats();
  CHECK_EQ(after.bytes_in - before.bytes_in, uint64_t{(1000 + 64 + 601 + 1024 + 2) * 16});
  CHECK_EQ(after.graph_runs, before.graph_runs);

  // Where there is no room for that, as they are.
  auto other = LoadModel(tiny_model, options);
  TheDevice()->Trim();
  fake->memory_limit = fake->allocated_bytes.load() + 2 * 12'000;
  CHECK_OK(RunTiny(other.get(), 600, 3, &result));
  CHECK_EQ(result, weight + 3);
  const Status full = RunTiny(other.get(), 1000, 3, &result);
  CHECK(full.message().find("no memory on the GPU") != std::string::npos);
  fake->memory_limit = SIZE_MAX;
}

// Rows that fill up a batch hold what was there before: also what fails.
TEST(RowsThatNobodyAskedForDoNotFailOthers) {
  ModelOptions options = OnGpu(1, true, {4});
  options.gpu.stand_in->graphs = false;
  options.scheduler.batch.max_batch = 4;
  options.scheduler.batch.max_delay_ns = 60'000'000'000;
  auto model = LoadModel(gather_model, options);
  Ref<Inbox> inbox(new Inbox);
  std::vector<Ref<Job>> jobs;
  for (const int64_t index : {0, 1, 2, 7}) {  // 7 is out of range
    jobs.push_back(EnterIndex(model.get(), inbox, index));
  }
  (void)inbox->Wait(4);
  for (int i = 0; i < 3; ++i) CHECK_OK(jobs[static_cast<size_t>(i)]->status);
  CHECK(jobs[3]->status.code() == Code::kInvalidInput);
  CHECK_EQ(Result(jobs[2].get()), 2.5f);
}

// A graph that is captured wants to be alone; others do not stand in its way for long, nor it in
// theirs.
TIMING_TEST(WhoCapturesIsAloneOrDoesWithout) {
  std::atomic<bool> ends{false};
  std::atomic<int> inside{0}, entered{0};
  std::vector<std::thread> others;
  for (int i = 0; i < 3; ++i) {
    others.emplace_back([&] {
      while (!ends) {
        const NoCapture no_capture;
        ++inside;
        ++entered;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        --inside;
      }
    });
  }
  while (entered < 10) std::this_thread::yield();
  for (int i = 0; i < 20; ++i) {
    CHECK(CaptureGate::Get().TryEnterAlone(1'000'000'000));
    CHECK_EQ(inside.load(), 0);
    CaptureGate::Get().LeaveAlone();
  }
  ends = true;
  for (std::thread& other : others) other.join();

  // A load that takes long: the run is done without a graph, and later with one.
  auto model = LoadModel(tiny_model, OnGpu(1, true, {4}));
  float result = 0;
  const uint64_t before = TheDevice()->Stats().graph_runs;
  CaptureGate::Get().Enter(true);
  const int64_t start = NowNs();
  CHECK(!CaptureGate::Get().TryEnterAlone(10'000'000'000));
  std::thread([&] { CHECK_OK(RunTiny(model.get(), 4, 1, &result)); }).join();
  CHECK(NowNs() - start < 5'000'000'000);
  CaptureGate::Get().Leave(true);
  CHECK_EQ(TheDevice()->Stats().graph_runs, before);
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  CHECK_OK(RunTiny(model.get(), 4, 1, &result));
  CHECK_EQ(TheDevice()->Stats().graph_runs, before + 1);
}

TEST(SlotsOfThreadsThatEndedAreOthers) {
  auto model = LoadModel(tiny_model, OnGpu(1, true, {4}));
  const uint64_t before = TheDevice()->Stats().graph_runs;
  for (int i = 0; i < 5; ++i) {
    std::thread([&] {
      float result = 0;
      CHECK_OK(RunTiny(model.get(), 4, 1, &result));
    }).join();
  }
  CHECK_EQ(TheDevice()->Stats().graph_runs, before + 5);
}

TEST(ASlotGrowsAndForgetsWhatPointedIntoItsOldMemory) {
  auto model = LoadModel(tiny_model, OnGpu(1, true, {1, 2, 64, 4096}));
  float weight = 0, result = 0;
  CHECK_OK(RunTiny(model.get(), 1, 0, &weight));
  for (int i = 0; i < 3; ++i) {
    for (uint32_t rows : {1u, 2u, 64u, 50u, 4000u, 5000u}) {
      CHECK_OK(RunTiny(model.get(), rows, static_cast<float>(rows), &result));
      CHECK_EQ(result, weight + static_cast<float>(rows));
    }
  }
  // More shapes than a slot keeps.
  for (uint32_t rows = 1; rows < 300; ++rows) {
    CHECK_OK(RunTiny(model.get(), rows, 1, &result, false));
    CHECK_EQ(result, weight + 1);
  }
}

// One value has room and the next has not: what points into the first one's old memory is gone.
TEST(ASlotThatCannotGrowStaysAsItWas) {
  FakeCuda* fake = OpenFakeCuda();
  auto model = LoadModel(tiny_model, OnGpu(1, true));
  float weight = 0, result = 0;
  CHECK_OK(RunTiny(model.get(), 4, 0, &weight));
  TheDevice()->Trim();
  // For the input, not for the output.
  fake->memory_limit = fake->allocated_bytes.load() + 1'700'000;
  CHECK(!RunTiny(model.get(), 100'000, 1, &result).ok());
  fake->memory_limit = SIZE_MAX;
  CHECK_OK(RunTiny(model.get(), 4, 100, &result));
  CHECK_EQ(result, weight + 100);
}

TEST(ADeviceThatFailsFailsTheRunAndNotTheNext) {
  FakeCuda* fake = OpenFakeCuda();
  auto model = LoadModel(tiny_model, OnGpu(2, true));
  float weight = 0, result = 0;
  CHECK_OK(RunTiny(model.get(), 1, 0, &weight));
  for (const int left : {0, 1}) {
    fake->copies_left = left;
    const Status failed = RunTiny(model.get(), 1, 1, &result);
    fake->copies_left = -1;
    CHECK(failed.code() == Code::kRun);
    const std::string which = left == 0 ? "copy to the GPU" : "copy from the GPU";
    CHECK(failed.message().find(which + ": unspecified launch failure") != std::string::npos);
    CHECK_OK(RunTiny(model.get(), 1, 1, &result));
    CHECK_EQ(result, weight + 1);
  }
  fake->memory_limit = fake->allocated_bytes.load();
  const Status full = RunTiny(model.get(), 100'000, 1, &result);
  fake->memory_limit = SIZE_MAX;
  CHECK(full.message().find("no memory on the GPU: out of memory") != std::string::npos);
  CHECK_OK(RunTiny(model.get(), 100'000, 1, &result));

  // A batch: all of its jobs are told, and the next ones run.
  Ref<Inbox> inbox(new Inbox);
  fake->copies_left = 0;
  Ref<Job> job = RowsJob(model.get(), inbox, 2);
  CHECK_OK(Enter(model.get(), job, 1));
  inbox->Wait(1);
  fake->copies_left = -1;
  CHECK(job->status.code() == Code::kRun);
  job = RowsJob(model.get(), inbox, 2);
  CHECK_OK(Enter(model.get(), job, 1));
  inbox->Wait(2);
  CHECK_OK(job->status);
}

TEST(WhatOnnxRuntimeAllocatesItCopies) {
  auto model = LoadModel(tiny_model, OnGpu(2, true, {1, 4}));
  Ref<Inbox> inbox(new Inbox);
  CHECK_OK(model->scheduler().Submit(TinyJob(model.get(), inbox, 3)));
  const Ref<Job> job = inbox->Wait(1)[0];
  CHECK_OK(job->status);
  void* data = nullptr;
  CHECK_OK(ToStatus(ort.GetTensorMutableData(job->outputs[0], &data), Code::kRun));
  float weight = 0;
  CHECK_OK(RunTiny(model.get(), 1, 0, &weight));
  CHECK_EQ(static_cast<float*>(data)[0], weight + 3);
}

TEST(LanesWarmTheirOwnSlots) {
  auto model = LoadModel(tiny_model, OnGpu(2, true, {1, 4}));
  WarmSample sample;
  sample.inputs.push_back({0, DType::kFloat32, {4, 4}, std::vector<uint8_t>(64)});
  std::vector<int64_t> best;
  const DeviceStats before = TheDevice()->Stats();
  CHECK_OK(WarmUp(model.get(), {sample, sample}, 1, 1'000'000'000, &best));
  CHECK_EQ(best.size(), size_t{2});
  CHECK_EQ(model->scheduler().Stats().lanes, uint64_t{2});
  CHECK_EQ(TheDevice()->Stats().graph_runs - before.graph_runs, uint64_t{4});

  // While requests come.
  Ref<Inbox> inbox(new Inbox);
  std::atomic<bool> ends{false};
  std::thread load([&] {
    for (size_t i = 0; !ends; ++i) {
      CHECK_OK(Enter(model.get(), RowsJob(model.get(), inbox, 1), 1));
      inbox->Wait(i + 1);
    }
  });
  for (int i = 0; i < 100; ++i) {
    std::vector<std::thread::id> who;
    CHECK_OK(model->scheduler().OnEachLane([&] {
      who.push_back(std::this_thread::get_id());
      return Status();
    }));
    CHECK(who.size() == 2 && who[0] != who[1]);
  }
  // Two at once, as two loads of a model that is shared, while a lane that has its turn lets others
  // serve.
  std::vector<std::thread> callers;
  std::atomic<int> done{0};
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      CHECK_OK(model->scheduler().OnEachLane([&] {
        ++done;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        return Status();
      }));
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK_EQ(done.load(), 8);
  const Status failed = model->scheduler().OnEachLane([] { return Status::Run("no"); });
  CHECK(failed.message() == "no");
  ends = true;
  load.join();

  sample.inputs[0].dims = {4, 5};
  sample.inputs[0].bytes.resize(80);
  const Status wrong = WarmUp(model.get(), {sample}, 1, 1'000'000'000, &best);
  CHECK(wrong.message().find("warm-up with x float32[4,5]: ") == 0);
}

TEST(ASchedulerThatEndsLeavesNobodyWaitingForItsLanes) {
  for (int i = 0; i < 50; ++i) {
    auto model = LoadModel(tiny_model, OnGpu(2, true));
    Status status;
    std::thread waits([&] {
      status = model->scheduler().OnEachLane([] {
        std::this_thread::sleep_for(std::chrono::microseconds(200));
        return Status();
      });
    });
    std::this_thread::sleep_for(std::chrono::microseconds(20 * i));
    model->scheduler().Quiesce(1'000'000'000);
    waits.join();
    CHECK(status.ok() || status.code() == Code::kClosed);
  }
}

TEST(ValuesStayOnTheDeviceBetweenRuns) {
  FakeCuda* fake = OpenFakeCuda();
  auto model = LoadModel(tiny_model, OnGpu(2, true));
  float weight = 0;
  CHECK_OK(RunTiny(model.get(), 1, 0, &weight));
  Ref<Binding> binding;
  Binding::ValueRequest in(Dims{1, 4}), stays;
  in.on_device = stays.on_device = true;
  CHECK_OK(Binding::Create(model, {in}, {stays}, &binding));
  const Binding::BoundValue& x = binding->inputs()[0];
  const Binding::BoundValue& y = binding->outputs()[0];
  CHECK(!x.lease && x.on_device && !y.lease && y.on_device);
  float numbers[4] = {2, 0, 0, 0}, back[4] = {};
  CHECK_OK(TheDevice()->CopyIn(x.on_device->data(), numbers, sizeof numbers));
  CHECK_OK(binding->RunSync());
  CHECK_OK(TheDevice()->CopyOut(back, y.on_device->data(), sizeof back));
  CHECK_EQ(back[0], weight + 2);

  // What one leaves there another takes.
  Ref<Binding> next;
  Binding::ValueRequest taken(Dims{1, 4});
  taken.lease = y.on_device;
  CHECK_OK(Binding::Create(model, {taken}, {std::nullopt}, &next));
  CHECK_OK(next->RunSync());
  CHECK_EQ(reinterpret_cast<float*>(next->outputs()[0].lease->data())[0], 2 * weight + 2);
  Ref<Binding> none;
  Binding::ValueRequest same(Dims{1, 4});
  same.lease = y.on_device;
  Status aliased = Binding::Create(model, {taken}, {same}, &none);
  CHECK(aliased.message().find("output \"y\" and \"x\" share their memory") != std::string::npos);
  taken.dims = Dims{3, 4};
  Status refused = Binding::Create(model, {taken}, {std::nullopt}, &none);
  CHECK(refused.message().find("expected 48 bytes, got 16") != std::string::npos);

  auto on_cpu = LoadModel(tiny_model);
  refused = Binding::Create(on_cpu, {Dims{1, 4}}, {stays}, &none);
  CHECK(refused.message().find("\"y\" cannot stay on a GPU: the model does not run on one") !=
        std::string::npos);
  CHECK_EQ(fake->strange.load(), 0);
}

TEST(LoadingAndUnloadingGivesTheDeviceBack) {
  FakeCuda* fake = OpenFakeCuda();
  TheRuntime()->ReturnMemory();
  const int streams = fake->streams, events = fake->events, allocations = fake->allocations;
  for (int i = 0; i < 20; ++i) {
    auto model = LoadModel(tiny_model, OnGpu(2, true, {1, 4}));
    float result = 0;
    CHECK_OK(RunTiny(model.get(), 4, 1, &result));
    Ref<Inbox> inbox(new Inbox);
    CHECK_OK(Enter(model.get(), RowsJob(model.get(), inbox, 2), 1));
    inbox->Wait(1);
  }
  TheRuntime()->ReturnMemory();
  CHECK_EQ(fake->streams.load(), streams);
  CHECK_EQ(fake->events.load(), events);
  CHECK_EQ(fake->allocations.load(), allocations);
  CHECK_EQ(TheDevice()->Stats().leases, uint64_t{0});
  CHECK_EQ(fake->strange.load(), 0);
}

TEST(ProvidersAreToldTheStream) {
  OpenFakeCuda();
  (void)TheRuntime();
  auto place = [](StringPairs cuda, int slots = 2) {
    ModelOptions options;
    options.gpu.slots = slots;
    options.providers = {{"TensorrtExecutionProvider", {}}, {"cuda", std::move(cuda)}, {"cpu", {}}};
    GpuPlacement placement;
    Status status = PlaceOnGpu(slots, &options, &placement);
    return std::make_tuple(std::move(status), std::move(options), placement.runner != nullptr);
  };
  {
    auto [status, options, has_runner] = place({});
    CHECK_OK(status);
    CHECK(has_runner && options.providers[2].options.empty());
    for (int i : {0, 1}) {
      const StringPairs& pairs = options.providers[i].options;
      CHECK_EQ(pairs.size(), size_t{2});
      CHECK(pairs[0] == std::make_pair(std::string("has_user_compute_stream"), std::string("1")));
      CHECK(pairs[1].first == "user_compute_stream" && std::stoull(pairs[1].second) > 0);
    }
    CHECK(options.providers[0].options[1] == options.providers[1].options[1]);
  }
  {
    auto [status, options, has_runner] = place({{"user_compute_stream", "1234"}});
    CHECK_OK(status);
    CHECK(has_runner && options.providers[1].options.size() == 1);
  }
  CHECK(!std::get<2>(place({}, 0)));
  auto refused = [&](StringPairs cuda, const char* reason, int slots = 2) {
    const Status status = std::get<0>(place(std::move(cuda), slots));
    CHECK(status.code() == Code::kInvalidInput);
    CHECK(status.message().find(reason) != std::string::npos);
  };
  refused({{"device_id", "1"}}, "one model on two GPUs: device_id 0 and 1");
  refused({{"enable_cuda_graph", "1"}}, "needs slots of our own", 0);
  refused({{"enable_cuda_graph", "1"}, {"user_compute_stream", "1"}}, "exclude each other");
  refused({{"trt_cuda_graph_enable", "true"}}, "replays its one graph");
}
