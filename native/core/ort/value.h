// Values of ONNX Runtime's: tensors made over memory and of strings, and read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ort/ort_library.h"
#include "ort/tensor.h"

namespace tercel {

// Makes an OrtValue over memory that somebody else keeps. `memory` describes where it is.
Status MakeTensor(const OrtMemoryInfo* memory, DType dtype, const int64_t* dims, size_t rank,
                  void* data, size_t bytes, OrtValue** out);
// Makes an OrtValue of strings; NUL bytes are kept.
Status MakeStringTensor(const std::vector<std::string>& strings, const int64_t* dims, size_t rank,
                        OrtValue** out);
// Reads dtype and shape of a tensor value. `dims` holds kMaxRank.
Status ReadTensorShape(const OrtValue* value, DType* dtype, int64_t* dims, size_t* rank);
Status ReadStrings(const OrtValue* value, size_t count, std::vector<std::string>* out);

}  // namespace tercel
