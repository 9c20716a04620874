// Binding: tensors fixed once and run many times, the "prepared statement".
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "memory/arena.h"
#include "model.h"
#include "ort/ort_library.h"
#include "ort/tensor.h"

namespace tercel {

// One thread at a time, and no run or change while another run is under way: the owner sees to it.
class Binding final : public RefCounted<Binding>, public BoundRun {
 public:
  // It is in host memory (`lease`), on the model's GPU (`on_device`), or of strings (neither).
  struct BoundValue {
    const ValueInfo* info = nullptr;
    DType dtype = DType::kUndefined;
    Dims dims;
    size_t bytes = 0;
    Ref<Lease> lease;
    Ref<DeviceLease> on_device;
    OrtPtr<OrtValue> value;
  };

  // How a value is to be bound.
  struct ValueRequest {
    ValueRequest(std::nullopt_t) {}                       // NOLINT: the shape follows from the model
    ValueRequest(Dims shape) : dims(std::move(shape)) {}  // NOLINT: as a shape
    ValueRequest() = default;
    std::optional<Dims> dims;
    bool on_device = false;  // stays on the GPU that the model runs on
    Ref<DeviceLease> lease;  // there already, with `dims`
  };

  // Requests in the order of the model's inputs and outputs. An input without a shape takes the
  // declared one, which must then be fixed. An output without a shape takes the declared one with its
  // named dimensions read off the inputs; if one is still open, the model is run once on zeros to see
  // it.
  static Status Create(std::shared_ptr<Model> model, const std::vector<ValueRequest>& inputs,
                       const std::vector<ValueRequest>& outputs, Ref<Binding>* out);

  const std::vector<BoundValue>& inputs() const { return inputs_; }
  // Rows of a run in the statistics.
  uint32_t counted_rows() const { return counted_rows_; }
  const std::vector<BoundValue>& outputs() const { return outputs_; }
  Model* model() const { return model_.get(); }

  Status RunSync();
  // What a lane does.
  OrtStatus* Run(const OrtRunOptions* options) override;
  // REQUIRES: the value is of strings; as many as its shape says.
  Status SetStrings(size_t input, const std::vector<std::string>& strings);
  Status GetStrings(size_t output, std::vector<std::string>* strings);

 private:
  friend class RefCounted<Binding>;
  explicit Binding(std::shared_ptr<Model> model) : model_(std::move(model)) {}
  ~Binding() = default;

  Status Prepare(const char* role, const ValueInfo& info, const Dims& dims, const ValueRequest& request,
                 BoundValue* bound);
  Status PrepareOnDevice(const char* role, const ValueRequest& request, BoundValue* bound);
  Status BindInputs();
  Status MakeValue(BoundValue* bound);
  Status ShareInput(const BoundValue& input, const Dims& dims, BoundValue* output);
  Status BindAsInput(const BoundValue& bound);
  Status BindAsOutput(const BoundValue& bound);
  Status ProbeOutputs(std::vector<ValueRequest>* requests);

  const std::shared_ptr<Model> model_;
  OrtPtr<OrtIoBinding> binding_;
  std::vector<BoundValue> inputs_;
  uint32_t counted_rows_ = 1;
  std::vector<BoundValue> outputs_;
  uint32_t runs_ = 0;
  // Of a model on a GPU, without strings: its runner takes the values as they are.
  bool on_runner_ = false;
  std::vector<const char*> names_;
  std::vector<const OrtValue*> input_values_;
  std::vector<OrtValue*> output_values_;
};

}  // namespace tercel
