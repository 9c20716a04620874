// What the tests that run models share.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fixtures/fake_cudart.h"
#include "model.h"
#include "runtime.h"
#include "sched/job.h"

namespace tercel::test {

// From the command line.
extern std::string library_path;
extern std::string tiny_model;    // y = x + w: float32[batch,4]
extern std::string gather_model;  // y = table[at]: int64[n] -> float32[n], a table of 3
extern std::string slow_model;    // loops: x float32[64,64], rounds int64[]

// The process's runtime; ends the program when it cannot be had.
Runtime* TheRuntime();
std::shared_ptr<Model> LoadModel(const std::string& path, const ModelOptions& options = {});

// Collects completions and lets a thread wait for them.
class Inbox : public CompletionSink {
 public:
  void Post(Ref<Completion> completion) override;
  // Waits until `count` have come in all, and gives away those that nobody has yet.
  std::vector<Ref<Job>> Wait(size_t count);
  // All that have ever come.
  size_t count();

 private:
  ~Inbox() override = default;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<Ref<Job>> jobs_;
  size_t count_ = 0;
};

// A job over memory of its own. For the slow model `rounds` says how long it takes.
Ref<Job> TinyJob(Model* model, Ref<Inbox> inbox, float value);
Ref<Job> SlowJob(Model* model, Ref<CompletionSink> inbox, int64_t rounds);
// A number of rounds that only termination ends.
inline constexpr int64_t kForever = int64_t{1} << 40;
// A job for `rows` rows of 4 floats in a block of the tiny model's.
Ref<Job> RowsJob(Model* model, Ref<Inbox> inbox, uint32_t rows);
void Fill(Job* job, float value);
// The first number of what came out.
float Result(const Job* job);
// Reserves, fills with `value` and says that it is ready.
Status Enter(Model* model, Ref<Job> job, float value);
// A job for one row of the gather model's table, reserved, filled and ready.
Ref<Job> EnterIndex(Model* model, Ref<Inbox> inbox, int64_t index);
void WaitUntilRunning(Model* model, uint64_t jobs);

// The fake of the CUDA runtime, opened as the process's.
using ::FakeCuda;
FakeCuda* OpenFakeCuda();

}  // namespace tercel::test
