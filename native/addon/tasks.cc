#include "tasks.h"

#include <optional>
#include <system_error>

#include "sched/throttle.h"

namespace tercel::addon {

ThreadTask::~ThreadTask() {
  if (thread_.joinable()) thread_.join();
}

void ThreadTask::Start(uint32_t slot) {
  env_->Put(slot, this);
  env_->mailbox()->Expect();
  // The thread's own reference becomes the mailbox's.
  Ref<Completion> self(this);
  auto run = [this, sink = env_->sink()](Ref<Completion> completion) {
    Work();
    sink->Post(std::move(completion));
  };
  auto on_thread = [this, run](Ref<Completion> completion) {
    std::optional<Throttle> throttle;
    if (throttling_ != Throttling::kNone) {
      throttle.emplace(env_->runtime()->budget()->busy(), throttling_ == Throttling::kLowered);
    }
    run(std::move(completion));
  };
  try {
    thread_ = std::thread(on_thread, self);
  } catch (const std::system_error&) {
    run(std::move(self));
  }
}

void WarmTask::Work() {
  if (check_rows && !samples.empty()) {
    // A model that cannot run two rows at once just does not batch.
    (void)RowsAreIndependent(model_.get(), samples.front(), &rows_independent_).ok();
    samples.erase(samples.begin());
  }
  status_ = WarmUp(model_.get(), samples, repeat, budget_ns, &run_ns_);
}

napi_value WarmTask::Finish(napi_env env, napi_value) {
  if (!status_.ok()) return env_->Throw(status_);
  Napi::Array run_ns = Napi::Array::New(env, run_ns_.size());
  for (uint32_t i = 0; i < run_ns_.size(); ++i) run_ns[i] = static_cast<double>(run_ns_[i]);
  Napi::Object result = Napi::Object::New(env);
  result.Set("runNs", run_ns);
  result.Set("rowsIndependent", rows_independent_);
  return result;
}

void LoadTask::Work() {
  ModelSource source;
  source.path = path;
  if (from_bytes) {
    // An empty buffer has no address, and null means "from the path".
    static const uint8_t kNothing = 0;
    source.bytes = bytes.empty() ? &kNothing : bytes.data();
    source.byte_count = bytes.size();
  }
  source.external_names = external_names;
  for (const auto& data : external_bytes) source.external_bytes.emplace_back(data.data(), data.size());
  Runtime* runtime = Runtime::Current();
  // Another environment's load of the same key may be cancelled under us: then it is our turn.
  do {
    status_ = runtime->Share(
        key,
        [&](std::shared_ptr<Model>* out) {
          const Status loaded = Model::Load(runtime, source, options, &cancellation_, out);
          // It locks parts of the heap that lanes allocate in: no pause meanwhile.
          const Throttle::Uninterrupted uninterrupted;
          Runtime::ReturnHeap();
          return loaded;
        },
        &model_);
  } while (status_.code() == Code::kAborted && !cancellation_.cancelled());
  // An .ort file may be used where it lies.
  for (const auto& [key, value] : options.config) {
    if (status_.ok() && key == "session.use_ort_model_bytes_directly" && value == "1") {
      model_->Keep(std::move(bytes));
    }
  }
  bytes = {};
  external_bytes = {};
}

napi_value LoadTask::Finish(napi_env, napi_value) {
  if (!status_.ok()) return env_->Throw(status_);
  return ModelHandle::Wrap(env_, std::move(model_), inline_mode);
}

void ReleaseTask::Work() {
  const bool last = model_.use_count() == 1;
  Runtime* runtime = model_->runtime();
  model_.reset();
  if (last) runtime->ReturnMemory();
}

}  // namespace tercel::addon
