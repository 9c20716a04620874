#include "values.h"

#include <algorithm>
#include <cstring>

#include "json/json_tensor.h"
#include "ort/value.h"

namespace tercel::addon {

namespace {

struct ArrayRow {
  napi_typedarray_type type;
  const char* name;
  size_t bytes;
};

constexpr ArrayRow kArrays[] = {
    {napi_int8_array, "Int8Array", 1},
    {napi_uint8_array, "Uint8Array", 1},
    {napi_uint8_clamped_array, "Uint8ClampedArray", 1},
    {napi_int16_array, "Int16Array", 2},
    {napi_uint16_array, "Uint16Array", 2},
    {napi_int32_array, "Int32Array", 4},
    {napi_uint32_array, "Uint32Array", 4},
    {napi_float32_array, "Float32Array", 4},
    {napi_float64_array, "Float64Array", 8},
    {napi_bigint64_array, "BigInt64Array", 8},
    {napi_biguint64_array, "BigUint64Array", 8},
};

napi_typedarray_type ArrayOf(DType dtype) {
  switch (dtype) {
    case DType::kInt8:
      return napi_int8_array;
    case DType::kUint8:
    case DType::kBool:
      return napi_uint8_array;
    case DType::kInt16:
      return napi_int16_array;
    case DType::kUint16:
    case DType::kFloat16:
    case DType::kBFloat16:
      return napi_uint16_array;
    case DType::kInt32:
      return napi_int32_array;
    case DType::kUint32:
      return napi_uint32_array;
    case DType::kFloat64:
      return napi_float64_array;
    case DType::kInt64:
      return napi_bigint64_array;
    case DType::kUint64:
      return napi_biguint64_array;
    default:
      return napi_float32_array;
  }
}

const char* ArrayName(napi_typedarray_type type) {
  for (const ArrayRow& row : kArrays) {
    if (row.type == type) return row.name;
  }
  return "a typed array";
}

std::string Where(const char* role, const ValueInfo& info) {
  return std::string(role) + " \"" + info.name + "\": ";
}

const ValueType& Unwrapped(const ValueType& type) {
  return type.kind == OnnxKind::kOptional && type.element ? *type.element : type;
}

}  // namespace

bool MayHold(napi_typedarray_type type, DType dtype) {
  const napi_typedarray_type wanted = ArrayOf(dtype);
  return type == wanted || (type == napi_uint8_clamped_array && wanted == napi_uint8_array);
}

Status ReadShape(MetaReader* meta, Argument* out) {
  out->dtype = meta->NextInt();
  const double rank = meta->Next();
  if (!(rank >= 0 && rank <= kMaxRank)) {
    return Status::InvalidInput("a shape has more than 32 dimensions");
  }
  out->rank = static_cast<size_t>(rank);
  for (size_t i = 0; i < out->rank; ++i) {
    const double dim = meta->Next();
    if (!(dim >= 0 && dim <= 9007199254740992.0) ||
        dim != static_cast<double>(static_cast<int64_t>(dim))) {
      return Status::InvalidInput("a dimension must be a whole number of 0 or more, got " +
                                  std::to_string(dim));
    }
    out->dims[i] = static_cast<int64_t>(dim);
  }
  out->begin = out->end = 0;
  out->text = nullptr;
  if (out->dtype >= kJsonText) {
    out->dtype -= kJsonText;
    out->begin = static_cast<size_t>(std::max(0.0, meta->Next()));
    out->end = static_cast<size_t>(std::max(0.0, meta->Next()));
  }
  return {};
}

namespace {

// Finds the text of an argument that is one.
Status FindText(napi_env env, const std::string& where, size_t elements, Argument* argument) {
  napi_typedarray_type type;
  size_t length = 0;
  void* body = nullptr;
  if (!Ok(napi_get_typedarray_info(env, argument->js, &type, &length, &body, nullptr, nullptr)) ||
      type != napi_uint8_array || argument->end > length || argument->begin >= argument->end ||
      !HasJsonForm(argument->type())) {
    return Status::InvalidInput(where + "no such text");
  }
  const size_t text_bytes = argument->end - argument->begin;
  // An element takes a digit and a comma at least: no memory for what cannot be there.
  if (argument->bytes >= kShareFromBytes && elements > text_bytes / 2) {
    return Status::InvalidInput(where + "the shape holds " + std::to_string(elements) +
                                " elements, data has " + std::to_string(text_bytes) + " bytes");
  }
  argument->text = static_cast<const char*>(body);
  argument->data = nullptr;
  return {};
}

}  // namespace

Status ReadTensor(napi_env env, const char* role, const ValueInfo& info, napi_value js, bool raw,
                  Argument* argument) {
  argument->js = js;
  const ValueType& type = Unwrapped(info.type);
  if (argument->dtype == kSequenceValue) {
    if (type.kind == OnnxKind::kSequence) return {};
    return Status::InvalidInput(Where(role, info) + "expected " + info.type.Text() +
                                ", got a sequence");
  }
  Status status = CheckTensor(role, info, argument->type(), argument->dims, argument->rank);
  if (!status.ok()) return status;
  size_t elements = 0;
  if (!CountElements(argument->dims, argument->rank, &elements)) {
    return Status::InvalidInput(Where(role, info) + "shape " +
                                ShapeText(argument->dims, argument->rank) + " is too large");
  }
  // At most 2^53 elements of at most 8 bytes: no overflow.
  argument->bytes = elements * DTypeBytes(argument->type());
  if (argument->end > 0) return FindText(env, Where(role, info), elements, argument);
  size_t length = 0;
  if (argument->type() == DType::kString) {
    uint32_t count = 0;
    if (!Ok(napi_get_array_length(env, js, &count))) {
      return Status::InvalidInput(Where(role, info) + "string data must be an array of strings");
    }
    length = count;
  } else {
    napi_typedarray_type got;
    const napi_typedarray_type wanted = ArrayOf(argument->type());
    if (!Ok(napi_get_typedarray_info(env, js, &got, &length, &argument->data, nullptr, nullptr))) {
      return Status::InvalidInput(Where(role, info) + DTypeName(argument->type()) + " data must be a " +
                                  ArrayName(wanted));
    }
    if (raw && got == napi_uint8_array) {
      if (length == argument->bytes) length = elements;
    } else if (!MayHold(got, argument->type())) {
      return Status::InvalidInput(Where(role, info) + DTypeName(argument->type()) + " data must be a " +
                                  ArrayName(wanted) + ", got a " + ArrayName(got));
    }
  }
  if (length != elements) {
    std::string message = Where(role, info) + "shape " + ShapeText(argument->dims, argument->rank) +
                          " holds " + std::to_string(elements) + " elements, data has " +
                          std::to_string(length);
    if (length == 0) message += " (is its buffer detached?)";
    return Status::InvalidInput(message);
  }
  return {};
}

Status ReadStringArray(napi_env env, napi_value array, std::vector<std::string>* out) {
  uint32_t count = 0;
  if (!Ok(napi_get_array_length(env, array, &count))) {
    return Status::InvalidInput("string data must be an array of strings");
  }
  out->resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    napi_value element = nullptr;
    size_t bytes = 0;
    if (!Ok(napi_get_element(env, array, i, &element)) ||
        !Ok(napi_get_value_string_utf8(env, element, nullptr, 0, &bytes))) {
      return Status::InvalidInput("string data must hold strings only; element " + std::to_string(i) +
                                  " is not one");
    }
    std::string& text = (*out)[i];
    text.resize(bytes + 1);  // Node-API writes a NUL behind
    napi_get_value_string_utf8(env, element, text.data(), text.size(), &bytes);
    text.resize(bytes);
  }
  return {};
}

napi_value MakeStringArray(napi_env env, const std::vector<std::string>& strings) {
  napi_value array = nullptr;
  if (!Ok(napi_create_array_with_length(env, strings.size(), &array))) return nullptr;
  for (size_t i = 0; i < strings.size(); ++i) {
    napi_value text = nullptr;
    if (!Ok(napi_create_string_utf8(env, strings[i].data(), strings[i].size(), &text)) ||
        !Ok(napi_set_element(env, array, static_cast<uint32_t>(i), text))) {
      return nullptr;
    }
  }
  return array;
}

namespace {

Status MakeStringValue(napi_env env, napi_value js, const int64_t* dims, size_t rank, OrtValue** out) {
  std::vector<std::string> strings;
  Status status = ReadStringArray(env, js, &strings);
  return status.ok() ? MakeStringTensor(strings, dims, rank, out) : status;
}

Status CopyNumbers(Runtime* runtime, const Argument& argument, std::vector<Ref<Lease>>* leases,
                   OrtValue** out) {
  Ref<Lease> lease = Lease::Take(runtime->arena(), argument.bytes);
  if (!lease)
    return Status::Overload("no memory for a tensor of " + std::to_string(argument.bytes) + " bytes");
  if (argument.bytes) std::memcpy(lease->data(), argument.data, argument.bytes);
  runtime->copies()->in.fetch_add(argument.bytes, std::memory_order_relaxed);
  Status status = MakeTensor(runtime, argument.type(), argument.dims, argument.rank, lease->data(),
                             argument.bytes, out);
  leases->push_back(std::move(lease));
  return status;
}

// A sequence comes as a flat array made by our own JS: dtype, dims, data for each tensor.
Status MakeSequence(napi_env env, Runtime* runtime, const ValueInfo& info, napi_value js,
                    std::vector<Ref<Lease>>* leases, OrtValue** out) {
  const ValueType& sequence = Unwrapped(info.type);
  if (!sequence.element) return Status::InvalidInput(Where("input", info) + "unknown element type");
  uint32_t length = 0;
  if (!Ok(napi_get_array_length(env, js, &length))) {
    return Status::InvalidInput(Where("input", info) + "a sequence must be an array of tensors");
  }
  if (length == 0) {
    return Status::InvalidInput(Where("input", info) +
                                "ONNX Runtime's C API cannot make an empty sequence");
  }
  std::vector<OrtPtr<OrtValue>> values;
  for (uint32_t i = 0; i + 2 < length; i += 3) {
    napi_value dtype = nullptr, dims = nullptr, data = nullptr;
    napi_get_element(env, js, i, &dtype);
    napi_get_element(env, js, i + 1, &dims);
    napi_get_element(env, js, i + 2, &data);
    Argument tensor;
    napi_get_value_int32(env, dtype, &tensor.dtype);
    uint32_t rank = 0;
    napi_get_array_length(env, dims, &rank);
    if (rank > kMaxRank) return Status::InvalidInput(Where("input", info) + "too many dimensions");
    tensor.rank = rank;
    for (uint32_t d = 0; d < rank; ++d) {
      napi_value dim = nullptr;
      napi_get_element(env, dims, d, &dim);
      if (!Ok(napi_get_value_int64(env, dim, &tensor.dims[d]))) tensor.dims[d] = -1;
    }
    ValueInfo element;
    element.name = info.name + "[" + std::to_string(i / 3) + "]";
    element.type.kind = sequence.element->kind;
    element.type.dtype = sequence.element->dtype;
    Status status = ReadTensor(env, "input", element, data, false, &tensor);
    if (!status.ok()) return status;
    OrtValue* value = nullptr;
    status = tensor.is_numbers() ? CopyNumbers(runtime, tensor, leases, &value)
                                 : MakeStringValue(env, data, tensor.dims, tensor.rank, &value);
    if (!status.ok()) return status;
    values.emplace_back(value);
  }
  std::vector<const OrtValue*> raw;
  for (auto& value : values) raw.push_back(value.get());
  return ToStatus(ort.CreateValue(raw.data(), raw.size(), static_cast<int>(OnnxKind::kSequence), out),
                  Code::kInvalidInput);
}

}  // namespace

Status MakeOwnedValue(napi_env env, Runtime* runtime, const ValueInfo& info, const Argument& argument,
                      std::vector<Ref<Lease>>* leases, OrtValue** out) {
  if (argument.dtype == kSequenceValue) {
    return MakeSequence(env, runtime, info, argument.js, leases, out);
  }
  Status status = MakeStringValue(env, argument.js, argument.dims, argument.rank, out);
  if (status.ok()) return status;
  return {status.code(), Where("input", info) + status.message()};
}

namespace {

Status NumbersOf(const OrtValue* value, const void** out) {
  void* data = nullptr;
  Status status = ToStatus(ort.GetTensorMutableData(const_cast<OrtValue*>(value), &data), Code::kRun);
  *out = data;
  return status;
}

// Reads the shape and sees that JavaScript can hold the type.
Status ReadOutput(const OrtValue* value, DType* dtype, int64_t* dims, size_t* rank, size_t* elements) {
  Status status = ReadTensorShape(value, dtype, dims, rank);
  if (!status.ok()) return status;
  if (!CountElements(dims, *rank, elements)) {
    return Status::Run("an output has an impossible shape " + ShapeText(dims, *rank));
  }
  if (*elements > kMaxBufferBytes / 8 && *elements * DTypeBytes(*dtype) > kMaxBufferBytes) {
    return Status::Run("an output of " + ShapeText(dims, *rank) + " is larger than 4 GiB");
  }
  if (*dtype != DType::kString && DTypeBytes(*dtype) == 0) {
    return Status::Run("an output is of " + DTypeName(*dtype) + ", which JavaScript cannot hold");
  }
  return {};
}

napi_value DataToJs(napi_env env, Runtime* runtime, const OrtValue* value, DType dtype, size_t elements,
                    Status* status) {
  if (dtype == DType::kString) {
    std::vector<std::string> strings;
    *status = ReadStrings(value, elements, &strings);
    return status->ok() ? MakeStringArray(env, strings) : nullptr;
  }
  const void* source = nullptr;
  *status = NumbersOf(value, &source);
  if (!status->ok()) return nullptr;
  void* target = nullptr;
  napi_value array = MakeTypedArray(env, dtype, elements, &target);
  if (!array) return nullptr;
  const size_t bytes = elements * DTypeBytes(dtype);
  if (bytes) std::memcpy(target, source, bytes);
  runtime->copies()->out.fetch_add(bytes, std::memory_order_relaxed);
  return array;
}

bool SetProperty(napi_env env, napi_value object, const char* name, napi_value value) {
  return value && Ok(napi_set_named_property(env, object, name, value));
}

// {dtype, shape, data}, {sequence: [...]} or {keys, values}; src/runtime/marshal.ts makes the rest.
napi_value NestedToJs(napi_env env, Runtime* runtime, const OrtValue* value, Status* status) {
  int kind = 0;
  *status = ToStatus(ort.GetValueType(value, &kind), Code::kRun);
  if (!status->ok()) return nullptr;
  napi_value object = nullptr;
  if (!Ok(napi_create_object(env, &object))) return nullptr;
  if (static_cast<OnnxKind>(kind) == OnnxKind::kTensor) {
    DType dtype;
    int64_t dims[kMaxRank];
    size_t rank = 0, elements = 0;
    *status = ReadOutput(value, &dtype, dims, &rank, &elements);
    if (!status->ok()) return nullptr;
    napi_value data = DataToJs(env, runtime, value, dtype, elements, status);
    if (!data) return nullptr;
    napi_value code = nullptr, shape = nullptr;
    napi_create_int32(env, static_cast<int>(dtype), &code);
    napi_create_array_with_length(env, rank, &shape);
    for (size_t i = 0; i < rank; ++i) {
      napi_value dim = nullptr;
      napi_create_int64(env, dims[i], &dim);
      napi_set_element(env, shape, static_cast<uint32_t>(i), dim);
    }
    const bool made = SetProperty(env, object, "dtype", code) &&
                      SetProperty(env, object, "shape", shape) &&
                      SetProperty(env, object, "data", data);
    return made ? object : nullptr;
  }
  const bool is_map = static_cast<OnnxKind>(kind) == OnnxKind::kMap;
  if (!is_map && static_cast<OnnxKind>(kind) != OnnxKind::kSequence) {
    *status = Status::Run("an output is of onnx kind " + std::to_string(kind) +
                          ", which Tercel does not carry");
    return nullptr;
  }
  size_t count = 2;  // a map's parts: keys, values
  if (!is_map) *status = ToStatus(ort.GetValueCount(value, &count), Code::kRun);
  if (!status->ok()) return nullptr;
  napi_value items = nullptr;
  if (!Ok(napi_create_array_with_length(env, count, &items))) return nullptr;
  for (size_t i = 0; i < count; ++i) {
    OrtValue* raw = nullptr;
    *status =
        ToStatus(ort.GetValue(value, static_cast<int>(i), DefaultOrtAllocator(), &raw), Code::kRun);
    if (!status->ok()) return nullptr;
    OrtPtr<OrtValue> part(raw);
    napi_value item = NestedToJs(env, runtime, raw, status);
    if (!item || !Ok(napi_set_element(env, items, static_cast<uint32_t>(i), item))) return nullptr;
  }
  return SetProperty(env, object, is_map ? "map" : "sequence", items) ? object : nullptr;
}

}  // namespace

bool OutputToJs(napi_env env, Runtime* runtime, const ValueType& declared, const OrtValue* value,
                MetaWriter* meta, size_t position, napi_value* out, Status* status) {
  int kind = static_cast<int>(OnnxKind::kTensor);
  if (declared.kind != OnnxKind::kTensor) {
    int has_value = value != nullptr;
    if (value) *status = ToStatus(ort.HasValue(value, &has_value), Code::kRun);
    if (!status->ok()) return false;
    if (!has_value) {
      meta->PutShape(DType::kUndefined, false, nullptr, 0);
      return Ok(napi_get_null(env, out));
    }
    *status = ToStatus(ort.GetValueType(value, &kind), Code::kRun);
    if (!status->ok()) return false;
  }
  if (static_cast<OnnxKind>(kind) != OnnxKind::kTensor) {
    meta->PutShape(static_cast<DType>(kNestedValue), false, nullptr, 0);
    *out = NestedToJs(env, runtime, value, status);
    return *out != nullptr;
  }
  DType dtype;
  int64_t dims[kMaxRank];
  size_t rank = 0, elements = 0;
  *status = ReadOutput(value, &dtype, dims, &rank, &elements);
  if (!status->ok()) return false;
  if (dtype == DType::kString) {
    meta->PutShape(dtype, false, dims, rank);
    *out = DataToJs(env, runtime, value, dtype, elements, status);
    return *out != nullptr;
  }
  Numbers numbers;
  *status = ReadNumbers(value, &numbers);
  return status->ok() && NumbersToJs(env, runtime, numbers, {}, meta, position, out);
}

Status ReadNumbers(const OrtValue* value, Numbers* out) {
  size_t elements = 0;
  Status status = ReadOutput(value, &out->dtype, out->dims, &out->rank, &elements);
  if (!status.ok()) return status;
  out->bytes = elements * DTypeBytes(out->dtype);
  return NumbersOf(value, &out->data);
}

namespace {

// An ArrayBuffer over memory that the holder keeps; null where the build refuses those (Electron).
napi_value ShareBuffer(napi_env env, const Numbers& numbers, const Holder& holder) {
  auto* held = new Holder(holder);
  auto finalize = [](napi_env, void*, void* hint) { delete static_cast<Holder*>(hint); };
  napi_value buffer = nullptr;
  if (!Ok(napi_create_external_arraybuffer(env, const_cast<void*>(numbers.data), numbers.bytes,
                                           finalize, held, &buffer))) {
    delete held;
    return nullptr;
  }
  return buffer;
}

}  // namespace

bool NumbersToJs(napi_env env, Runtime* runtime, const Numbers& numbers, const Holder& holder,
                 MetaWriter* meta, size_t position, napi_value* out) {
  void* target = meta->Scratch(position, numbers.bytes);
  meta->PutShape(numbers.dtype, target != nullptr, numbers.dims, numbers.rank);
  const size_t elements = numbers.bytes / DTypeBytes(numbers.dtype);
  if (!target && numbers.bytes >= kShareFromBytes && (holder.lease || holder.outputs)) {
    if (napi_value buffer = ShareBuffer(env, numbers, holder)) {
      return Ok(napi_create_typedarray(env, ArrayOf(numbers.dtype), elements, buffer, 0, out));
    }
  }
  if (!target) {
    *out = MakeTypedArray(env, numbers.dtype, elements, &target);
    if (!*out) return false;
  }
  if (numbers.bytes) std::memcpy(target, numbers.data, numbers.bytes);
  runtime->copies()->out.fetch_add(numbers.bytes, std::memory_order_relaxed);
  return true;
}

napi_value MakeTypedArray(napi_env env, DType dtype, size_t elements, void** data) {
  napi_value buffer = nullptr, array = nullptr;
  if (!Ok(napi_create_arraybuffer(env, elements * DTypeBytes(dtype), data, &buffer))) return nullptr;
  if (!Ok(napi_create_typedarray(env, ArrayOf(dtype), elements, buffer, 0, &array))) return nullptr;
  return array;
}

bool IsShared(napi_env env, napi_value typed_array) {
  napi_value buffer = nullptr;
  bool is_plain = true;
  // Node-API has no name for a SharedArrayBuffer: it is the buffer that is no ArrayBuffer.
  return Ok(napi_get_typedarray_info(env, typed_array, nullptr, nullptr, nullptr, &buffer, nullptr)) &&
         Ok(napi_is_arraybuffer(env, buffer, &is_plain)) && !is_plain;
}

Status CopyToGiven(napi_env env, Runtime* runtime, const ValueInfo& info, const OrtValue* value,
                   napi_value target) {
  DType dtype;
  int64_t dims[kMaxRank];
  size_t rank = 0, bytes = 0;
  Status status = ReadTensorShape(value, &dtype, dims, &rank);
  if (!status.ok()) return status;
  if (!CountBytes(dtype, dims, rank, &bytes)) return Status::Run("an output has an impossible shape");
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (!Ok(napi_get_typedarray_info(env, target, &type, &length, &data, nullptr, nullptr)) ||
      length * DTypeBytes(dtype) != bytes || !MayHold(type, dtype)) {
    return Status::InvalidInput(Where("output", info) + "the run gave " + DTypeName(dtype) +
                                ShapeText(dims, rank) +
                                ", which does not fit the given tensor (or its buffer was detached)");
  }
  void* source = nullptr;
  status = ToStatus(ort.GetTensorMutableData(const_cast<OrtValue*>(value), &source), Code::kRun);
  if (!status.ok()) return status;
  if (bytes) std::memcpy(data, source, bytes);
  runtime->copies()->out.fetch_add(bytes, std::memory_order_relaxed);
  return {};
}

napi_value LeaseToArrayBuffer(napi_env env, Runtime* runtime, const Ref<Lease>& lease, size_t bytes) {
  struct Held {
    Ref<Lease> lease;
    Runtime* runtime;
  };
  auto* held = new Held{lease, runtime};
  auto finalize = [](napi_env, void*, void* hint) {
    auto* held = static_cast<Held*>(hint);
    held->runtime->lease_table()->Remove(held->lease.get());
    delete held;
  };
  runtime->lease_table()->Add(lease.get());
  napi_value buffer = nullptr;
  if (!Ok(napi_create_external_arraybuffer(env, lease->data(), bytes, finalize, held, &buffer))) {
    finalize(env, nullptr, held);
    return nullptr;
  }
  return buffer;
}

}  // namespace tercel::addon
