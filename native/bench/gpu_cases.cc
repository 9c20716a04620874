#include "gpu_cases.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

namespace tercel::proof {

void Stop(const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  std::exit(2);
}

std::string Format(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return text;
}

namespace {

// Data that needs no file: the same as in bench/gpu/bundle.ts.
bool Make(const std::string& pattern, Value* value) {
  size_t count = 0;
  if (!CountElements(value->dims.data(), value->dims.size(), &count)) return false;
  value->bytes.resize(count * DTypeBytes(value->dtype));
  for (size_t i = 0; i < count; ++i) {
    const int64_t whole = pattern == "ids" ? static_cast<int64_t>(i % 1999) : 1;
    const float part = pattern == "ramp" ? static_cast<float>(static_cast<double>(i % 251) / 251) : 1;
    if (value->dtype == DType::kInt64) std::memcpy(&value->bytes[i * 8], &whole, 8);
    if (value->dtype == DType::kFloat32) std::memcpy(&value->bytes[i * 4], &part, 4);
  }
  return pattern == "ramp" || pattern == "ids" || pattern == "ones";
}

}  // namespace

Case ReadCase(const std::filesystem::path& folder) {
  Case found;
  found.name = folder.filename();
  found.model = folder / "model.onnx";
  std::ifstream list(folder / "case.txt");
  std::string line;
  while (std::getline(list, line)) {
    std::istringstream words(line);
    std::string role, file;
    Value value;
    int dtype = 0;
    size_t rank = 0;
    words >> role;
    if (role == "flops") {
      words >> found.flops;
      continue;
    }
    words >> value.name >> dtype >> rank;
    value.dtype = static_cast<DType>(dtype);
    value.dims.resize(rank);
    for (int64_t& dim : value.dims) words >> dim;
    words >> file;
    const bool is_made = file.rfind("pattern:", 0) == 0 && Make(file.substr(8), &value);
    if (!is_made) {
      std::ifstream data(folder / file, std::ios::binary);
      value.bytes.assign(std::istreambuf_iterator<char>(data), {});
    }
    size_t bytes = 0;
    if (!words || !CountBytes(value.dtype, value.dims.data(), rank, &bytes) ||
        bytes != value.bytes.size()) {
      Stop(found.name + ": case.txt: " + line);
    }
    (role == "input" ? found.inputs : found.outputs).push_back(std::move(value));
  }
  return found;
}

std::string Difference(const Value& expected, const uint8_t* got, double relative, double absolute) {
  const size_t count = expected.bytes.size() / std::max<size_t>(1, DTypeBytes(expected.dtype));
  auto floats = [&](auto zero) -> std::string {
    using T = decltype(zero);
    for (size_t i = 0; i < count; ++i) {
      T a, b;
      std::memcpy(&a, got + i * sizeof(T), sizeof(T));
      std::memcpy(&b, expected.bytes.data() + i * sizeof(T), sizeof(T));
      const bool same = a == b || (std::isnan(a) && std::isnan(b)) ||
                        std::abs(a - b) <= absolute + relative * std::abs(b);
      if (!same) return Format("element %zu is %g, expected %g", i, double(a), double(b));
    }
    return "";
  };
  if (expected.dtype == DType::kFloat32) return floats(0.0f);
  if (expected.dtype == DType::kFloat64) return floats(0.0);
  return std::memcmp(got, expected.bytes.data(), expected.bytes.size()) ? "bytes differ" : "";
}

}  // namespace tercel::proof
