// AddonEnv: what the addon keeps for one JS environment (the main thread or a worker).
#pragma once

#include <napi.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "base/ref.h"
#include "base/status.h"
#include "runtime.h"
#include "sched/job.h"

namespace tercel::addon {

class ModelHandle;

// A completion for a JS thread. Everything but Post happens on that thread.
class JsCompletion {
 public:
  virtual ~JsCompletion() = default;
  // Makes the JS result. Returns null with a pending exception on failure. `targets` may be undefined.
  virtual napi_value Finish(napi_env env, napi_value targets) = 0;
  uint32_t slot = 0;  // where JS waits for it
};

// A completion that can be asked to end early.
class Cancellable {
 public:
  virtual ~Cancellable() = default;
  virtual void Cancel(Status reason) = 0;
};

// Where native threads post completions for one JS thread: one wake for each drain.
//
//   lanes --Post--> posted_ --Next (JS thread)--> taken_ --> Finish
//            \-- wakes the event loop, unless JS is polling or a wake is under way
class Mailbox : public CompletionSink {
 public:
  // JS thread. `wake` is unreferenced while nothing is outstanding, so that Node may exit.
  void Open(napi_env env, napi_threadsafe_function wake);
  // JS thread, once: waits for what is outstanding, then drops it all.
  void CloseAndDrain();

  // JS thread: one more completion will come. Its pair is Taken. With `polling`, JS looks by itself and
  // needs no wake, until Next is told otherwise.
  void Expect(bool polling = false);
  void Taken();
  // JS thread: it will not come after all.
  void Unexpect();
  uint32_t outstanding() const { return outstanding_; }

  // JS thread: the next completion, or null. `stop_polling`: the caller will not look again.
  Ref<Completion> Next(bool stop_polling);

  void Post(Ref<Completion> completion) override { PostAll(&completion, 1); }
  void PostAll(Ref<Completion>* completions, size_t count) override;

 private:
  ~Mailbox() override = default;
  void SendWake();  // REQUIRES: mutex_ held

  std::mutex mutex_;
  std::condition_variable arrived_;
  // Protected by mutex_.
  Completion* posted_head_ = nullptr;
  Completion* posted_tail_ = nullptr;
  uint32_t in_flight_ = 0;  // expected, not yet posted
  bool polling_ = false;
  bool wake_sent_ = false;
  bool closed_ = false;
  // JS thread only.
  Completion* taken_ = nullptr;
  uint32_t outstanding_ = 0;
  napi_env env_ = nullptr;
  napi_threadsafe_function wake_ = nullptr;
};

// Holds the floats that carry shapes across the boundary; see values.h.
struct Meta {
  double* data = nullptr;
  size_t size = 0;
};

class AddonEnv : public RefCounted<AddonEnv> {
 public:
  static AddonEnv* Create(napi_env env);

  napi_env env() const { return env_; }
  Runtime* runtime() const { return Runtime::Current(); }
  Mailbox* mailbox() const { return mailbox_.get(); }
  Ref<CompletionSink> sink() const { return mailbox_; }
  Meta& meta() { return meta_; }

  // Throws the public error class for `status`; returns null, so that callers can return it.
  napi_value Throw(const Status& status);
  // Makes it without throwing.
  napi_value MakeError(const Status& status);

  void SetMeta(napi_value array);
  void SetErrorFactory(napi_value function);
  void SetWakeCallback(napi_value function);

  // The job or task that JS waits for in `slot`; for Cancel.
  void Put(uint32_t slot, JsCompletion* completion);
  void Remove(uint32_t slot);
  JsCompletion* Get(uint32_t slot) const;
  const std::vector<JsCompletion*>& slots() const { return slots_; }

  // The next completion, kept until Finish; its slot, or null.
  JsCompletion* TakeNext(bool stop_polling);
  napi_value FinishCurrent(napi_value targets);

  // A job that has its rows, and waits for others of this turn of the event loop before a lane is told:
  // each one told costs a wake, and a run of its own. Enough of them go at once.
  void Hold(const std::shared_ptr<Model>& model, Ref<Job> job);
  // REQUIRED before a held job may be cancelled.
  void Flush();

  std::set<ModelHandle*>& handles() { return handles_; }
  bool closing() const { return closing_; }

  // Polling keeps a processor busy: this thread may while one is left beside the other pollers.
  bool MayPoll();
  void StopPolling();

  // When the last submission or completion was, for polling.
  int64_t last_activity_ns = 0;
  int64_t poll_limit_ns = 0;

 private:
  friend class RefCounted<AddonEnv>;
  explicit AddonEnv(napi_env env);
  ~AddonEnv();

  static void OnEnvCleanup(void* self);
  static void OnWake(napi_env env, napi_value callback, void* context, void* data);
  void CleanUp();
  void SetReference(napi_ref* reference, napi_value value);

  const napi_env env_;
  const Ref<Mailbox> mailbox_;
  Meta meta_;
  napi_ref meta_ref_ = nullptr;
  napi_ref error_factory_ = nullptr;
  napi_ref wake_callback_ = nullptr;
  napi_threadsafe_function wake_ = nullptr;
  std::vector<JsCompletion*> slots_;
  std::set<ModelHandle*> handles_;
  Ref<Completion> current_;
  std::vector<Ref<Job>> held_;
  std::shared_ptr<Model> held_model_;  // of all of them
  bool closing_ = false;
  bool polls_ = false;  // holds one of the process's places
};

// napi calls fail only when JS has thrown or the environment is going away; both end the call.
inline bool Ok(napi_status status) { return status == napi_ok; }

inline napi_value Undefined(napi_env env) {
  napi_value value = nullptr;
  napi_get_undefined(env, &value);
  return value;
}

}  // namespace tercel::addon
