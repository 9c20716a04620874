#include "json.h"

#include "closure.h"
#include "json_tensor.h"

namespace tercel::addon {

namespace {

// A typed array's memory; empty for anything else.
struct View {
  uint8_t* data = nullptr;
  size_t bytes = 0;
};

View ViewOf(napi_env env, napi_value value) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr) != napi_ok)
    return {};
  const size_t size =
      type == napi_float64_array || type == napi_bigint64_array || type == napi_biguint64_array ? 8
      : type == napi_float32_array || type == napi_int32_array || type == napi_uint32_array     ? 4
      : type == napi_int16_array || type == napi_uint16_array                                   ? 2
                                                                                                : 1;
  return {static_cast<uint8_t*>(data), length * size};
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

// carveJson(bytes, marker, spans): the envelope; spans, a Float64Array, gets the number of arrays, then
// begin and end of each as far as there is room
napi_value Carve(napi_env env, napi_callback_info info) {
  napi_value args[3];
  ReadCall<AddonEnv>(env, info, args);
  const View bytes = ViewOf(env, args[0]);
  const View out = ViewOf(env, args[2]);
  std::string envelope;
  std::vector<JsonSpan> spans;
  CarveJson({reinterpret_cast<const char*>(bytes.data), bytes.bytes},
            Napi::Value(env, args[1]).ToString().Utf8Value(), &envelope, &spans);
  auto* numbers = reinterpret_cast<double*>(out.data);
  const size_t room = out.bytes / sizeof(double);
  if (room > 0) numbers[0] = static_cast<double>(spans.size());
  for (size_t i = 0; i < spans.size() && 2 * i + 2 < room; ++i) {
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
  if (end > bytes.bytes || begin > end || !HasJsonForm(dtype)) {
    return self->Throw(Prefixed(env, args[7], Status::InvalidInput("no such span or dtype")));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data) + begin, end - begin);
  const NonFinite policy = ReadPolicy(env, args[4]);
  const size_t count = out.bytes / DTypeBytes(dtype);
  Status status = ParseJsonTensor(text, begin, dtype, policy, out.data, count, "");
  if (!status.ok()) {
    // Again, for the message: the name is not worth reading for each request.
    status = ParseJsonTensor(text, begin, dtype, policy, out.data, count,
                             Napi::Value(env, args[6]).ToString().Utf8Value());
  }
  return status.ok() ? Undefined(env) : self->Throw(Prefixed(env, args[7], status));
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
  const size_t count = HasJsonForm(dtype) ? data.bytes / DTypeBytes(dtype) : 0;
  if (!HasJsonForm(dtype) || at > out.bytes || out.bytes - at < JsonBound(dtype, count)) {
    return self->Throw(Prefixed(env, args[5], Status::InvalidInput("no such dtype, or no room")));
  }
  size_t bytes = 0;
  Status status = PrintJsonTensor(dtype, ReadPolicy(env, args[1]), data.data, count,
                                  reinterpret_cast<char*>(out.data) + at, &bytes);
  if (!status.ok()) return self->Throw(Prefixed(env, args[5], status));
  return Napi::Number::New(env, static_cast<double>(at + bytes));
}

}  // namespace

bool AddJsonFunctions(napi_env env, napi_value exports, AddonEnv* self) {
  return AddFunction(env, exports, "carveJson", Carve, self) &&
         AddFunction(env, exports, "parseJson", Parse, self) &&
         AddFunction(env, exports, "jsonBound", Bound, self) &&
         AddFunction(env, exports, "printJson", Print, self);
}

}  // namespace tercel::addon
