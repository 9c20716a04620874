// Reads plain options off JS objects: what is missing or of another type is the default. TypeScript has
// checked them.
#pragma once

#include <napi.h>

#include <string>
#include <utility>
#include <vector>

namespace tercel::addon {

inline std::string Text(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  return value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string();
}

inline int64_t Integer(const Napi::Object& object, const char* name, int64_t otherwise) {
  const Napi::Value value = object.Get(name);
  return value.IsNumber() ? value.As<Napi::Number>().Int64Value() : otherwise;
}

inline bool Flag(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  return value.IsBoolean() && value.As<Napi::Boolean>().Value();
}

inline std::vector<int64_t> Integers(const Napi::Value& value) {
  std::vector<int64_t> numbers;
  if (!value.IsArray()) return numbers;
  const Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    numbers.push_back(Napi::Value(array[i]).ToNumber().Int64Value());
  }
  return numbers;
}

inline std::vector<std::string> Texts(const Napi::Value& value) {
  std::vector<std::string> texts;
  if (!value.IsArray()) return texts;
  const Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    texts.push_back(Napi::Value(array[i]).ToString().Utf8Value());
  }
  return texts;
}

// [key, value, key, value, ...]
inline std::vector<std::pair<std::string, std::string>> Pairs(const Napi::Value& value) {
  const std::vector<std::string> flat = Texts(value);
  std::vector<std::pair<std::string, std::string>> pairs;
  for (size_t i = 0; i + 1 < flat.size(); i += 2) pairs.emplace_back(flat[i], flat[i + 1]);
  return pairs;
}

// A copy of a Uint8Array's bytes.
inline std::vector<uint8_t> CopyBytes(const Napi::Value& value) {
  if (!value.IsTypedArray()) return {};
  const Napi::Uint8Array array = value.As<Napi::Uint8Array>();
  return {array.Data(), array.Data() + array.ByteLength()};
}

}  // namespace tercel::addon
