// Work that takes milliseconds or more, on a thread of its own: loading a model, letting one go.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "env.h"
#include "model.h"
#include "model_handle.h"
#include "warm_up.h"

namespace tercel::addon {

// Lowered: at the lowest priority too, as are threads that the work begins.
enum class Throttling { kNone, kPauses, kLowered };

// A thread that posts itself when done. Made, finished and joined on the JS thread.
class ThreadTask : public Completion, public JsCompletion {
 public:
  ~ThreadTask() override;
  // Where the system has no thread to give, the work is done here and now.
  void Start(uint32_t slot);
  // So that the work does not hold up what the process serves meanwhile.
  void set_throttling(Throttling throttling) { throttling_ = throttling; }

 protected:
  explicit ThreadTask(Ref<AddonEnv> env) : env_(std::move(env)) {}
  virtual void Work() = 0;

  const Ref<AddonEnv> env_;

 private:
  std::thread thread_;
  Throttling throttling_ = Throttling::kNone;
};

class LoadTask : public ThreadTask, public Cancellable {
 public:
  explicit LoadTask(Ref<AddonEnv> env) : ThreadTask(std::move(env)) {}

  napi_value Finish(napi_env env, napi_value targets) override;
  void Cancel(Status) override { cancellation_.Cancel(); }

  // Set before Start.
  std::string key;
  std::string path;
  bool from_bytes = false;
  std::vector<uint8_t> bytes;  // our copy: JS may do what it likes with its own meanwhile
  std::vector<std::string> external_names;
  std::vector<std::vector<uint8_t>> external_bytes;
  ModelOptions options;
  ModelHandle::Inline inline_mode = ModelHandle::Inline::kAuto;

 private:
  void Work() override;

  LoadCancellation cancellation_;
  Status status_;
  std::shared_ptr<Model> model_;
};

class WarmTask : public ThreadTask {
 public:
  WarmTask(Ref<AddonEnv> env, std::shared_ptr<Model> model)
      : ThreadTask(std::move(env)), model_(std::move(model)) {}

  napi_value Finish(napi_env env, napi_value targets) override;

  // Set before Start.
  std::vector<WarmSample> samples;
  int repeat = 1;
  int64_t budget_ns = 0;
  bool check_rows = false;  // the first sample has two rows: see whether they mix

 private:
  void Work() override;

  const std::shared_ptr<Model> model_;
  Status status_;
  std::vector<int64_t> run_ns_;
  bool rows_independent_ = false;
};

class ReleaseTask : public ThreadTask {
 public:
  ReleaseTask(Ref<AddonEnv> env, std::shared_ptr<Model> model)
      : ThreadTask(std::move(env)), model_(std::move(model)) {}
  napi_value Finish(napi_env env, napi_value) override { return Undefined(env); }

 private:
  void Work() override;

  std::shared_ptr<Model> model_;
};

}  // namespace tercel::addon
