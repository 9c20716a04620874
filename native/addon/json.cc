#include "json.h"

#include <functional>

#include "closure.h"
#include "json/json_tensor.h"
#include "tasks.h"
#include "values.h"

namespace tercel::addon {

namespace {

// A typed array; of no elements for anything else.
struct View {
  napi_typedarray_type type = napi_uint8_array;
  size_t length = 0;
  uint8_t* data = nullptr;
};

View ViewOf(napi_env env, napi_value value) {
  View view;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, value, &view.type, &view.length, &data, nullptr, nullptr) !=
      napi_ok) {
    return {};
  }
  view.data = static_cast<uint8_t*>(data);
  return view;
}

DType ReadDType(napi_env env, napi_value value) { return static_cast<DType>(ReadUint32(env, value)); }

NonFinite ReadPolicy(napi_env env, napi_value value) {
  bool tokens = false;
  napi_get_value_bool(env, value, &tokens);
  return tokens ? NonFinite::kTokens : NonFinite::kRefused;
}

size_t ReadSize(napi_env env, napi_value value) {
  double number = 0;
  napi_get_value_double(env, value, &number);
  return number > 0 ? static_cast<size_t>(number) : 0;
}

Status Prefixed(napi_env env, napi_value where, const Status& status) {
  return {status.code(), Napi::Value(env, where).ToString().Utf8Value() + ": " + status.message()};
}

// The dims in a Float64Array.
std::vector<int64_t> DimsOf(const View& view) {
  std::vector<int64_t> dims;
  if (view.type != napi_float64_array) return dims;
  const auto* numbers = reinterpret_cast<const double*>(view.data);
  for (size_t i = 0; i < view.length; ++i) dims.push_back(static_cast<int64_t>(numbers[i]));
  return dims;
}

// carveJson(bytes, rows, marker, spans): the envelope; spans, a Float64Array, gets the number of
// arrays, then begin and end of each as far as there is room
napi_value Carve(napi_env env, napi_callback_info info) {
  napi_value args[4];
  ReadCall<AddonEnv>(env, info, args);
  const View bytes = ViewOf(env, args[0]);
  bool rows = false;
  napi_get_value_bool(env, args[1], &rows);
  const View out = ViewOf(env, args[3]);
  std::string envelope;
  std::vector<JsonSpan> spans;
  CarveJson({reinterpret_cast<const char*>(bytes.data), bytes.length},
            rows ? JsonForm::kRows : JsonForm::kTensors,
            Napi::Value(env, args[2]).ToString().Utf8Value(), &envelope, &spans);
  auto* numbers = reinterpret_cast<double*>(out.data);
  if (out.length > 0) numbers[0] = static_cast<double>(spans.size());
  for (size_t i = 0; i < spans.size() && 2 * i + 2 < out.length; ++i) {
    numbers[2 * i + 1] = static_cast<double>(spans[i].begin);
    numbers[2 * i + 2] = static_cast<double>(spans[i].end);
  }
  return Napi::String::New(env, envelope);
}

// Text too long for the JS thread. JS keeps the arrays until the task is over, and an environment that
// ends waits for it.
class JsonTask : public ThreadTask {
 public:
  using Function = std::function<Status(size_t* end)>;
  JsonTask(Ref<AddonEnv> env, std::string where, Function function)
      : ThreadTask(std::move(env)), where_(std::move(where)), function_(std::move(function)) {}

  napi_value Finish(napi_env env, napi_value) override {
    if (status_.ok()) return Napi::Number::New(env, static_cast<double>(end_));
    return env_->Throw({status_.code(), where_ + ": " + status_.message()});
  }

 private:
  void Work() override { status_ = function_(&end_); }

  const std::string where_;
  const Function function_;
  Status status_;
  size_t end_ = 0;
};

void StartTask(napi_env env, AddonEnv* self, napi_value slot, napi_value where,
               JsonTask::Function function) {
  Ref<JsonTask> task(new JsonTask(Ref<AddonEnv>(self), Napi::Value(env, where).ToString().Utf8Value(),
                                  std::move(function)));
  task->Start(ReadUint32(env, slot));
}

// What parseJson() and parseJsonLater() do with their arguments from `bytes` on; no function where they
// are none.
JsonTask::Function Parser(napi_env env, const napi_value* args) {
  const View bytes = ViewOf(env, args[0]);
  const size_t begin = ReadSize(env, args[1]);
  const size_t end = ReadSize(env, args[2]);
  const DType dtype = ReadDType(env, args[3]);
  const NonFinite policy = ReadPolicy(env, args[4]);
  const View out = ViewOf(env, args[5]);
  if (end > bytes.length || begin > end || !MayHold(out.type, dtype)) return nullptr;
  char datatype[16] = {};
  napi_get_value_string_utf8(env, args[6], datatype, sizeof datatype, nullptr);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data) + begin, end - begin);
  return [=, name = std::string(datatype)](size_t*) {
    return ParseJsonTensor(text, begin, dtype, policy, out.data, out.length, name);
  };
}

// parseJson(bytes, begin, end, dtype, tokens, out, datatype, where): `out` is a typed array of the
// dtype
napi_value Parse(napi_env env, napi_callback_info info) {
  napi_value args[8];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  const JsonTask::Function parse = Parser(env, args);
  size_t ignored = 0;
  Status status = parse ? parse(&ignored) : Status::InvalidInput("no such span or dtype");
  return status.ok() ? Undefined(env) : self->Throw(Prefixed(env, args[7], status));
}

// parseJsonLater(slot, ...as parseJson)
napi_value ParseLater(napi_env env, napi_callback_info info) {
  napi_value args[9];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  JsonTask::Function parse = Parser(env, args + 1);
  if (!parse) {
    return self->Throw(Prefixed(env, args[8], Status::InvalidInput("no such span or dtype")));
  }
  StartTask(env, self, args[0], args[8], std::move(parse));
  return Undefined(env);
}

// jsonShape(bytes, begin, end, where): dims of the nested lists
napi_value Shape(napi_env env, napi_callback_info info) {
  napi_value args[4];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  const View bytes = ViewOf(env, args[0]);
  const size_t begin = ReadSize(env, args[1]);
  const size_t end = ReadSize(env, args[2]);
  if (end > bytes.length || begin > end) {
    return self->Throw(Prefixed(env, args[3], Status::InvalidInput("no such span")));
  }
  std::vector<int64_t> dims;
  Status status =
      JsonShape({reinterpret_cast<const char*>(bytes.data) + begin, end - begin}, begin, &dims);
  if (!status.ok()) return self->Throw(Prefixed(env, args[3], status));
  Napi::Array shape = Napi::Array::New(env, dims.size());
  for (uint32_t i = 0; i < dims.size(); ++i) shape[i] = static_cast<double>(dims[i]);
  return shape;
}

// nestedBound(dtype, dims)
napi_value NestedBound(napi_env env, napi_callback_info info) {
  napi_value args[2];
  ReadCall<AddonEnv>(env, info, args);
  const size_t bound = JsonNestedBound(ReadDType(env, args[0]), DimsOf(ViewOf(env, args[1])));
  return Napi::Number::New(env, static_cast<double>(bound));
}

// printNested(dtype, tokens, data, dims, out, at, where): where in `out` it ends
napi_value PrintNested(napi_env env, napi_callback_info info) {
  napi_value args[7];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  const DType dtype = ReadDType(env, args[0]);
  const View data = ViewOf(env, args[2]);
  const std::vector<int64_t> dims = DimsOf(ViewOf(env, args[3]));
  const View out = ViewOf(env, args[4]);
  const size_t at = ReadSize(env, args[5]);
  size_t count = 1;
  for (const int64_t dim : dims) count *= static_cast<size_t>(dim);
  if (!MayHold(data.type, dtype) || count != data.length || at > out.length ||
      out.length - at < JsonNestedBound(dtype, dims)) {
    return self->Throw(Prefixed(env, args[6], Status::InvalidInput("no such tensor, or no room")));
  }
  size_t bytes = 0;
  Status status = PrintJsonNested(dtype, ReadPolicy(env, args[1]), data.data, dims,
                                  reinterpret_cast<char*>(out.data) + at, &bytes);
  if (!status.ok()) return self->Throw(Prefixed(env, args[6], status));
  return Napi::Number::New(env, static_cast<double>(at + bytes));
}

// jsonBound(dtype, count)
napi_value Bound(napi_env env, napi_callback_info info) {
  napi_value args[2];
  ReadCall<AddonEnv>(env, info, args);
  const size_t bound = JsonBound(ReadDType(env, args[0]), ReadSize(env, args[1]));
  return Napi::Number::New(env, static_cast<double>(bound));
}

// What printJson() and printJsonLater() do with their arguments from `dtype` on; no function where they
// are none.
JsonTask::Function JsonPrinter(napi_env env, const napi_value* args) {
  const DType dtype = ReadDType(env, args[0]);
  const NonFinite policy = ReadPolicy(env, args[1]);
  const View data = ViewOf(env, args[2]);
  const View out = ViewOf(env, args[3]);
  const size_t at = ReadSize(env, args[4]);
  if (!MayHold(data.type, dtype) || at > out.length ||
      out.length - at < JsonBound(dtype, data.length)) {
    return nullptr;
  }
  return [=](size_t* end) {
    size_t bytes = 0;
    Status status = PrintJsonTensor(dtype, policy, data.data, data.length,
                                    reinterpret_cast<char*>(out.data) + at, &bytes);
    *end = at + bytes;
    return status;
  };
}

// printJson(dtype, tokens, data, out, at, where): where in `out` it ends
napi_value Print(napi_env env, napi_callback_info info) {
  napi_value args[6];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  const JsonTask::Function print = JsonPrinter(env, args);
  size_t end = 0;
  Status status = print ? print(&end) : Status::InvalidInput("no such dtype, or no room");
  if (!status.ok()) return self->Throw(Prefixed(env, args[5], status));
  return Napi::Number::New(env, static_cast<double>(end));
}

// printJsonLater(slot, ...as printJson)
napi_value PrintLater(napi_env env, napi_callback_info info) {
  napi_value args[7];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  JsonTask::Function print = JsonPrinter(env, args + 1);
  if (!print) {
    return self->Throw(Prefixed(env, args[6], Status::InvalidInput("no such dtype, or no room")));
  }
  StartTask(env, self, args[0], args[6], std::move(print));
  return Undefined(env);
}

}  // namespace

bool AddJsonFunctions(napi_env env, napi_value exports, AddonEnv* self) {
  return AddFunction(env, exports, "carveJson", Carve, self) &&
         AddFunction(env, exports, "parseJson", Parse, self) &&
         AddFunction(env, exports, "parseJsonLater", ParseLater, self) &&
         AddFunction(env, exports, "printJsonLater", PrintLater, self) &&
         AddFunction(env, exports, "jsonShape", Shape, self) &&
         AddFunction(env, exports, "nestedBound", NestedBound, self) &&
         AddFunction(env, exports, "printNested", PrintNested, self) &&
         AddFunction(env, exports, "jsonBound", Bound, self) &&
         AddFunction(env, exports, "printJson", Print, self);
}

}  // namespace tercel::addon
