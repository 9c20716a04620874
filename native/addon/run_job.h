// RunJob: a run on a lane that a JS promise waits for.
#pragma once

#include <functional>

#include "binding_handle.h"
#include "env.h"
#include "model_handle.h"
#include "sched/job.h"

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
    } kind;
  };

  explicit RunJob(Ref<ModelHandle> handle);

  // Whether the job can be run again for the inputs and outputs of another request: all numbers, all
  // copied, all of the same types and shapes.
  bool Fits(const Request& request) const;
  // Remembers what Fits compares. REQUIRES: everything is in the job's one lease.
  void Remember(const Request& request);
  // The job's rows are to lie in a block of the bucket, with the request's outputs.
  void Stage(Ref<Bucket> bucket, uint32_t rows, const Request& request);
  // A spare job belongs to its handle and holds neither it nor the model.
  void Assign(Ref<ModelHandle> handle);
  ~RunJob() override;

  napi_value Finish(napi_env env, napi_value targets) override;
  void Cancel(Status reason) override;

  const Ref<ModelHandle>& handle() const { return handle_; }

  InlineVector<Result, 4> results;
  // When a binding runs.
  Ref<BindingHandle> binding_handle;
  Ref<Binding> keep;
  // JS shares the memory of large results.
  bool share_results = false;
  // Shapes of the outputs without the padding, in the order of the results; empty when nothing is
  // padded.
  std::vector<std::vector<int64_t>> unpadded;

 private:
  // Lets go of what the run needed, so that a closing model can go.
  void End();

  Ref<ModelHandle> handle_;
  std::shared_ptr<Model> model_;
  // One output as numbers, wherever the run left it, and what keeps it there.
  Status Output(size_t i, Numbers* numbers, Holder* holder);
  bool MakeResult(napi_env env, size_t i, MetaWriter* writer, napi_value* out, Status* problem);

  bool reusable_ = false;
  // Types and shapes of inputs, then indices of outputs.
  std::vector<int64_t> signature_;
};

// Hands the job to its model's scheduler with the slot, priority and timeout in meta. Returns JS true,
// or null with a pending exception when it is refused. `write` is called once the job has its rows, and
// copies the inputs there; null for a job that brings its values. `hold`: it may wait for the end of
// this turn of the event loop.
napi_value SubmitJob(AddonEnv* env, Ref<RunJob> job, const Meta& meta,
                     const std::function<void(RunJob*)>& write = nullptr, bool hold = false);

}  // namespace tercel::addon
