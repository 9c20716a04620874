// RunJob: a run on a lane that a JS promise waits for.
#pragma once

#include "binding_handle.h"
#include "env.h"
#include "job.h"
#include "model_handle.h"

namespace tercel::addon {

// Made, finished and dropped on the JS thread; in between the scheduler has it.
class RunJob : public Job, public JsCompletion, public Cancellable {
 public:
  // What becomes of one output.
  struct Result {
    uint32_t index;  // in the model's outputs
    enum How : uint8_t {
      kMake,     // a new JS tensor
      kCopy,     // into the tensor that JS gave
      kInPlace,  // the run wrote into the given memory itself
    } how;
  };

  explicit RunJob(Ref<ModelHandle> handle);

  // Whether the job can be run again for the inputs and outputs of another request: all numbers, all
  // copied, all of the same types and shapes.
  bool Fits(const Request& request) const;
  // Remembers what Fits compares. REQUIRES: everything is in the job's one lease.
  void Remember(const Request& request);
  // A spare job belongs to its handle and holds neither it nor the model.
  void Employ(Ref<ModelHandle> handle);
  ~RunJob() override;

  napi_value Finish(napi_env env, napi_value targets) override;
  void Cancel(Status reason) override;

  const Ref<ModelHandle>& handle() const { return handle_; }

  InlineVector<Result, 4> results;
  // When a binding runs.
  Ref<BindingHandle> binding_handle;
  Ref<Binding> keep;

 private:
  // Lets go of what the run needed, so that a closing model can go.
  void End();

  Ref<ModelHandle> handle_;
  std::shared_ptr<Model> model_;
  bool reusable_ = false;
  // Types and shapes of inputs, then indices of outputs.
  std::vector<int64_t> signature_;
};

// Hands the job to its model's scheduler with the slot, priority and timeout in meta. Returns JS true,
// or null with a pending exception when it is refused.
napi_value SubmitJob(AddonEnv* env, Ref<RunJob> job, const Meta& meta);

}  // namespace tercel::addon
