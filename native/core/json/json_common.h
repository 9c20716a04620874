// What the two directions of json_tensor.h have in common.
#pragma once

#include <array>
#include <cstdint>

#include "ort/tensor.h"

namespace tercel::json {

inline constexpr std::array<uint64_t, 20> kPowersOf10 = [] {
  std::array<uint64_t, 20> powers{};
  uint64_t power = 1;
  for (uint64_t& one : powers) {
    one = power;
    power *= 10;
  }
  return powers;
}();
inline bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
inline bool IsDigit(char c) { return static_cast<unsigned char>(c - '0') < 10; }

// Calls `use` with a null pointer of the dtype's C++ type.
template <typename Use>
auto ForDType(DType dtype, Use use) {
  switch (dtype) {
    case DType::kFloat32:
      return use(static_cast<float*>(nullptr));
    case DType::kFloat64:
      return use(static_cast<double*>(nullptr));
    case DType::kInt8:
      return use(static_cast<int8_t*>(nullptr));
    case DType::kInt16:
      return use(static_cast<int16_t*>(nullptr));
    case DType::kInt32:
      return use(static_cast<int32_t*>(nullptr));
    case DType::kInt64:
      return use(static_cast<int64_t*>(nullptr));
    case DType::kUint8:
      return use(static_cast<uint8_t*>(nullptr));
    case DType::kUint16:
      return use(static_cast<uint16_t*>(nullptr));
    case DType::kUint32:
      return use(static_cast<uint32_t*>(nullptr));
    case DType::kUint64:
      return use(static_cast<uint64_t*>(nullptr));
    default:
      return use(static_cast<bool*>(nullptr));
  }
}

}  // namespace tercel::json
