#include "json.h"

#include "closure.h"
#include "json_tensor.h"
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

// parseJson(bytes, begin, end, dtype, tokens, out, datatype, where): `out` is a typed array of the
// dtype
napi_value Parse(napi_env env, napi_callback_info info) {
  napi_value args[8];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  const View bytes = ViewOf(env, args[0]);
  const size_t begin = ReadSize(env, args[1]);
  const size_t end = ReadSize(env, args[2]);
  const DType dtype = ReadDType(env, args[3]);
  const View out = ViewOf(env, args[5]);
  if (end > bytes.length || begin > end || !MayHold(out.type, dtype)) {
    return self->Throw(Prefixed(env, args[7], Status::InvalidInput("no such span or dtype")));
  }
  char datatype[16] = {};
  napi_get_value_string_utf8(env, args[6], datatype, sizeof datatype, nullptr);
  Status status =
      ParseJsonTensor({reinterpret_cast<const char*>(bytes.data) + begin, end - begin}, begin, dtype,
                      ReadPolicy(env, args[4]), out.data, out.length, datatype);
  return status.ok() ? Undefined(env) : self->Throw(Prefixed(env, args[7], status));
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

// printJson(dtype, tokens, data, out, at, where): where in `out` it ends
napi_value Print(napi_env env, napi_callback_info info) {
  napi_value args[6];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  const DType dtype = ReadDType(env, args[0]);
  const View data = ViewOf(env, args[2]);
  const View out = ViewOf(env, args[3]);
  const size_t at = ReadSize(env, args[4]);
  if (!MayHold(data.type, dtype) || at > out.length ||
      out.length - at < JsonBound(dtype, data.length)) {
    return self->Throw(Prefixed(env, args[5], Status::InvalidInput("no such dtype, or no room")));
  }
  size_t bytes = 0;
  Status status = PrintJsonTensor(dtype, ReadPolicy(env, args[1]), data.data, data.length,
                                  reinterpret_cast<char*>(out.data) + at, &bytes);
  if (!status.ok()) return self->Throw(Prefixed(env, args[5], status));
  return Napi::Number::New(env, static_cast<double>(at + bytes));
}

}  // namespace

bool AddJsonFunctions(napi_env env, napi_value exports, AddonEnv* self) {
  return AddFunction(env, exports, "carveJson", Carve, self) &&
         AddFunction(env, exports, "parseJson", Parse, self) &&
         AddFunction(env, exports, "jsonShape", Shape, self) &&
         AddFunction(env, exports, "nestedBound", NestedBound, self) &&
         AddFunction(env, exports, "printNested", PrintNested, self) &&
         AddFunction(env, exports, "jsonBound", Bound, self) &&
         AddFunction(env, exports, "printJson", Print, self);
}

}  // namespace tercel::addon
