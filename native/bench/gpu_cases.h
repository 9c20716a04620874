// The cases that bench/gpu/bundle.ts wrote, for the program that runs them on a GPU.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ort/tensor.h"
#include "ort/value.h"

namespace tercel::proof {

struct Value {
  std::string name;
  DType dtype = DType::kUndefined;
  Dims dims;
  std::vector<uint8_t> bytes;  // of the inputs, and of the expected outputs
};

struct Case {
  std::string name;
  std::string model;
  std::vector<Value> inputs;
  std::vector<Value> outputs;
  double flops = 0;  // of a run
};

// Ends the program with status 2.
[[noreturn]] void Stop(const std::string& message);
std::string Format(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Lines of `input|output NAME DTYPE RANK DIMS... FILE` beside model.onnx; a FILE may be `pattern:NAME`.
// A line `flops NUMBER` says what a run computes. Ends the program where it cannot be read.
Case ReadCase(const std::filesystem::path& folder);

// The first element that is not as expected, within absolute + relative * expected; or "".
std::string Difference(const Value& expected, const uint8_t* got, double relative, double absolute);

}  // namespace tercel::proof
