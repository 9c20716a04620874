#include "env.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/adaptive_lock.h"
#include "model.h"
#include "model_handle.h"
#include "profile.h"

namespace tercel::addon {

namespace {
// mlp over HTTP with 64 connections: a lane is busy 0.67 s of 4 with 8, 1.3 with 1 (each request told
// at once), and a request waits 0.5 ms; with 64 it is 0.53 s and 1.6 ms.
constexpr size_t kHeldJobs = 8;
// JS threads that poll now.
std::atomic<int> pollers{0};
}  // namespace

void Mailbox::Open(napi_env env, napi_threadsafe_function wake) {
  env_ = env;
  wake_ = wake;
}

void Mailbox::Expect(bool polling) {
  if (outstanding_++ == 0) napi_ref_threadsafe_function(env_, wake_);
  const auto lock = LockAdaptive(mutex_);
  ++in_flight_;
  if (polling) polling_ = true;
}

void Mailbox::Taken() {
  if (--outstanding_ == 0) napi_unref_threadsafe_function(env_, wake_);
}

void Mailbox::Unexpect() {
  Taken();
  const auto lock = LockAdaptive(mutex_);
  --in_flight_;
  // JS, told of the refusal, does not begin to poll.
  polling_ = false;
  if (posted_head_) SendWake();
}

void Mailbox::SendWake() {
  if (wake_sent_) return;
  wake_sent_ = true;
  napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
}

Ref<Completion> Mailbox::Next(bool stop_polling) {
  if (!taken_) {
    const auto lock = LockAdaptive(mutex_);
    taken_ = posted_head_;
    posted_head_ = posted_tail_ = nullptr;
    wake_sent_ = false;
    if (!taken_ && stop_polling) polling_ = false;
  }
  if (!taken_) return nullptr;
  Completion* first = taken_;
  taken_ = first->next_completion;
  first->next_completion = nullptr;
  return Ref<Completion>::Adopt(first);
}

void Mailbox::PostAll(Ref<Completion>* completions, size_t count) {
  Completion* head = nullptr;
  Completion* tail = nullptr;
  for (size_t i = 0; i < count; ++i) {
    Completion* raw = completions[i].Release();
    (tail ? tail->next_completion : head) = raw;
    tail = raw;
  }
  const auto lock = LockAdaptive(mutex_);
  (posted_tail_ ? posted_tail_->next_completion : posted_head_) = head;
  posted_tail_ = tail;
  in_flight_ -= static_cast<uint32_t>(count);
  if (closed_) {
    arrived_.notify_all();
  } else if (!polling_) {
    SendWake();
  }
}

void Mailbox::CloseAndDrain() {
  std::unique_lock<std::mutex> lock(mutex_);
  closed_ = true;
  arrived_.wait(lock, [this] { return in_flight_ == 0; });
  lock.unlock();
  while (Ref<Completion> dropped = Next(true)) {
  }
}

AddonEnv::AddonEnv(napi_env env) : env_(env), mailbox_(new Mailbox) {}

AddonEnv::~AddonEnv() = default;

AddonEnv* AddonEnv::Create(napi_env env) {
  Ref<AddonEnv> self(new AddonEnv(env));
  napi_value name = nullptr;
  napi_create_string_utf8(env, "tercel", NAPI_AUTO_LENGTH, &name);
  if (!Ok(napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr,
                                          self.get(), OnWake, &self->wake_))) {
    return nullptr;
  }
  napi_unref_threadsafe_function(env, self->wake_);
  self->mailbox_->Open(env, self->wake_);
  // Added after the threadsafe function's own hook, so it runs before it.
  if (!Ok(napi_add_env_cleanup_hook(env, OnEnvCleanup, self.get()))) return nullptr;
  return self.Release();  // given back in OnEnvCleanup
}

void AddonEnv::OnEnvCleanup(void* data) {
  Ref<AddonEnv> self = Ref<AddonEnv>::Adopt(static_cast<AddonEnv*>(data));
  self->CleanUp();
}

void AddonEnv::CleanUp() {
  closing_ = true;
  StopPolling();
  StopAllocationLogOf(this);
  Flush();
  // Native threads may be reading this environment's memory: end them first.
  for (JsCompletion* completion : slots_) {
    if (!completion) continue;
    if (auto* cancellable = dynamic_cast<Cancellable*>(completion)) {
      cancellable->Cancel(Status::Closed("the JavaScript environment ended"));
    }
  }
  mailbox_->CloseAndDrain();
  current_.reset();  // JS may have been ended between next() and finish()
  slots_.clear();
  for (ModelHandle* handle : std::set<ModelHandle*>(handles_)) handle->Abandon();
  napi_release_threadsafe_function(wake_, napi_tsfn_abort);
  for (napi_ref reference : {meta_ref_, error_factory_, wake_callback_}) {
    if (reference) napi_delete_reference(env_, reference);
  }
  meta_ref_ = error_factory_ = wake_callback_ = nullptr;
  meta_ = {};
}

void AddonEnv::OnWake(napi_env env, napi_value, void* context, void*) {
  auto* self = static_cast<AddonEnv*>(context);
  if (!env || !self->wake_callback_) return;  // the environment is going away
  napi_value callback = nullptr, receiver = nullptr, result = nullptr;
  if (!Ok(napi_get_reference_value(env, self->wake_callback_, &callback))) return;
  if (!Ok(napi_get_undefined(env, &receiver))) return;
  napi_call_function(env, receiver, callback, 0, nullptr, &result);
}

void AddonEnv::SetReference(napi_ref* reference, napi_value value) {
  if (*reference) napi_delete_reference(env_, *reference);
  *reference = nullptr;
  napi_create_reference(env_, value, 1, reference);
}

void AddonEnv::SetMeta(napi_value array) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (!Ok(napi_get_typedarray_info(env_, array, &type, &length, &data, nullptr, nullptr))) return;
  SetReference(&meta_ref_, array);
  meta_ = {static_cast<double*>(data), length};
}

void AddonEnv::SetErrorFactory(napi_value function) { SetReference(&error_factory_, function); }
void AddonEnv::SetWakeCallback(napi_value function) { SetReference(&wake_callback_, function); }

napi_value AddonEnv::MakeError(const Status& status) {
  napi_value factory = nullptr, receiver = nullptr, error = nullptr;
  napi_value args[2] = {};
  if (!error_factory_ || !Ok(napi_get_reference_value(env_, error_factory_, &factory)) ||
      !Ok(napi_get_undefined(env_, &receiver)) ||
      !Ok(napi_create_uint32(env_, static_cast<uint32_t>(status.code()), &args[0])) ||
      !Ok(napi_create_string_utf8(env_, status.message().data(), status.message().size(), &args[1])) ||
      !Ok(napi_call_function(env_, receiver, factory, 2, args, &error))) {
    return nullptr;
  }
  return error;
}

napi_value AddonEnv::Throw(const Status& status) {
  bool pending = false;
  if (Ok(napi_is_exception_pending(env_, &pending)) && pending) return nullptr;
  if (napi_value error = MakeError(status)) napi_throw(env_, error);
  return nullptr;
}

void AddonEnv::Hold(const std::shared_ptr<Model>& model, Ref<Job> job) {
  if (held_model_ != model) Flush();
  held_model_ = model;
  held_.push_back(std::move(job));
  if (held_.size() >= kHeldJobs) Flush();
}

void AddonEnv::Flush() {
  if (held_.empty()) return;
  held_model_->scheduler().Ready(held_.data(), held_.size());
  held_.clear();
  held_model_.reset();
}

bool AddonEnv::MayPoll() {
  if (polls_) return true;
  // One processor is left to the lanes. On two, a second poller took it from the only lane: mlp from
  // two threads fell from 0.8 to 0.69 of the C loop (bench/batching.ts).
  static const int places = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) - 1);
  if (pollers.fetch_add(1) >= places) {
    pollers.fetch_sub(1);
    return false;
  }
  return polls_ = true;
}

void AddonEnv::StopPolling() {
  if (polls_) pollers.fetch_sub(1);
  polls_ = false;
}

JsCompletion* AddonEnv::TakeNext(bool stop_polling) {
  current_ = mailbox_->Next(stop_polling);
  if (!current_) {
    if (stop_polling) StopPolling();
    return nullptr;
  }
  auto* completion = dynamic_cast<JsCompletion*>(current_.get());
  Remove(completion->slot);
  mailbox_->Taken();
  return completion;
}

napi_value AddonEnv::FinishCurrent(napi_value targets) {
  const Ref<Completion> current = std::move(current_);
  auto* completion = dynamic_cast<JsCompletion*>(current.get());
  return completion ? completion->Finish(env_, targets) : nullptr;
}

void AddonEnv::Put(uint32_t slot, JsCompletion* completion) {
  if (slot >= slots_.size()) slots_.resize(slot + 64);
  slots_[slot] = completion;
  completion->slot = slot;
}

void AddonEnv::Remove(uint32_t slot) {
  if (slot < slots_.size()) slots_[slot] = nullptr;
}

JsCompletion* AddonEnv::Get(uint32_t slot) const {
  return slot < slots_.size() ? slots_[slot] : nullptr;
}

}  // namespace tercel::addon
