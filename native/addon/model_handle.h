// ModelHandle: one JS environment's hold on a Model. src/runtime/model.ts is the class around it.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "binding.h"
#include "env.h"
#include "model.h"
#include "request.h"
#include "sched/padding.h"
#include "values.h"

namespace tercel::addon {

class BindingHandle;
class RunJob;

// JS thread only.
class ModelHandle : public RefCounted<ModelHandle> {
 public:
  enum class Inline { kAuto, kAlways, kNever };

  // The JS object with the handle's functions. Null with a pending exception.
  static napi_value Wrap(Ref<AddonEnv> env, std::shared_ptr<Model> model, Inline inline_mode);

  AddonEnv* env() const { return env_.get(); }
  const std::shared_ptr<Model>& model() const { return model_; }
  bool closed() const { return closed_; }
  Status ClosedStatus() const;

  // Whether a run on this thread now costs less than a hop to a lane and back.
  // `concurrent`: JS has other runs of its own under way.
  bool ShouldRunInline(bool allowed, bool concurrent) const;
  // Keeps a job for the next run of the same shapes, if there is room.
  void KeepSpare(Ref<RunJob> job);
  // The same for jobs whose rows lie in blocks: these fit any request.
  void KeepStaged(Ref<RunJob> job);
  // Counts what runs on lanes for this handle; the model is let go when closed and idle.
  void BeginJob() { ++jobs_; }
  void EndJob();

  std::set<BindingHandle*>& bindings() { return bindings_; }

  // The environment ends: lets the model go at once.
  void Abandon();

 private:
  friend class RefCounted<ModelHandle>;
  // An OrtValue made for the same memory and shape as in the last call.
  struct CachedValue {
    void* data = nullptr;
    int dtype = 0;
    size_t rank = 0;
    int64_t dims[8];
    OrtPtr<OrtValue> value;
  };

  ModelHandle(Ref<AddonEnv> env, std::shared_ptr<Model> model, Inline inline_mode);
  ~ModelHandle();

  static napi_value RunSync(napi_env env, napi_callback_info info);
  static napi_value Run(napi_env env, napi_callback_info info);
  static napi_value Bind(napi_env env, napi_callback_info info);
  static napi_value Stats(napi_env env, napi_callback_info info);
  static napi_value Configure(napi_env env, napi_callback_info info);
  static napi_value Warm(napi_env env, napi_callback_info info);
  static napi_value EndRuns(napi_env env, napi_callback_info info);
  static napi_value Close(napi_env env, napi_callback_info info);
  static napi_value EndProfile(napi_env env, napi_callback_info info);

  Status Read(napi_value* args, size_t count) {
    return ReadRequest(env_->env(), env_->meta(), *model_, args, count, &request_);
  }
  napi_value RunHere();
  // Reads what is JSON still into memory that lasts until the next call: for whoever takes numbers
  // only.
  Status ReadTexts();
  // Writes the shape that the model declares into the output's argument; false where it says too
  // little.
  bool PredictShape(Request::Output* output) const;
  // Finds memory for an output whose shape is known before the run: then nothing is copied out, and a
  // small result costs no ArrayBuffer. Leaves it to ORT otherwise.
  void Predict(size_t position, Request::Output* output, const MetaWriter& meta);
  napi_value Submit();
  // A job for the request as rows of a batch; null when it cannot share one.
  Ref<RunJob> Stage();
  bool PadShapes();
  // Sets bucket_, shapes_ and padded_; false when the request has no rows.
  bool FindBucket(uint32_t* rows);
  // The request's own, without padding; null for an input that it has not.
  const int64_t* DimsOf(uint32_t input) const;
  // Rows of the request in the statistics.
  uint32_t CountedRows() const {
    return model_->CountedRows(request_.inputs.size(), [this](size_t i) -> const int64_t* {
      return request_.inputs[i].rank > 0 ? request_.inputs[i].dims : nullptr;
    });
  }
  // Copies the request's inputs to the rows that the job was given.
  void WriteRows(RunJob* job);
  // A spare job with this request's inputs written into it; null when none fits.
  Ref<RunJob> TakeSpare();
  // The call itself. When a call has the very values of the one before, they are bound, and while that
  // goes on a run spares ORT the look-up of names (0.1 us).
  OrtStatus* CallRun();
  bool BindValues();
  void DropCaches();
  Status CachedTensor(CachedValue* cached, const Argument& argument, const OrtValue** out);
  void CancelRuns();
  void ReleaseModel();

  const Ref<AddonEnv> env_;
  std::shared_ptr<Model> model_;
  const Inline inline_mode_;
  bool closed_ = false;
  uint32_t jobs_ = 0;
  bool wants_close_ = false;
  uint32_t close_slot_ = 0;
  std::set<BindingHandle*> bindings_;

  // Jobs that are done, with their memory and values: making them anew costs the JS thread 0.7 us.
  std::vector<Ref<RunJob>> spares_;
  std::vector<Ref<RunJob>> staged_spares_;

  // What Configure set.
  std::vector<PadRule> pad_rules_;
  std::map<uint32_t, std::array<uint8_t, 8>> pad_values_;  // an element's bytes, by input
  // Of the last request that was staged.
  Ref<Bucket> bucket_;
  std::vector<Bucket::Shape> shapes_;
  std::vector<uint32_t> wanted_;
  std::vector<std::array<int64_t, kMaxRank>> padded_dims_;
  bool padded_ = false;

  // Reused between calls, so that a run allocates nothing.
  Request request_;
  std::vector<CachedValue> input_cache_;
  std::vector<CachedValue> output_cache_;
  std::vector<OrtPtr<OrtValue>> owned_;
  std::vector<Ref<Lease>> leases_;
  std::vector<Ref<Lease>> read_;  // by input, what ReadTexts wrote last
  std::vector<const char*> input_names_;
  std::vector<const OrtValue*> input_values_;
  std::vector<const char*> output_names_;
  std::vector<OrtValue*> output_values_;
  uint32_t timed_runs_ = 0;

  // Whether a value of this call was made for it: then its address says nothing.
  bool fresh_values_ = false;
  // The values of the last call, and whether binding_ holds them.
  std::vector<const OrtValue*> last_values_;
  OrtPtr<OrtIoBinding> binding_;
  bool bound_ = false;
};

}  // namespace tercel::addon
